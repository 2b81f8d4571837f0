// Weights of IEEE half precision.
alias Packed = vec2<u32>;
fn widen(raw: Packed) -> vec4<f32> { return vec4(unpack2x16float(raw.x), unpack2x16float(raw.y)); }
