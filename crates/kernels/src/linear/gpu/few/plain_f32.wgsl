// Weights of 32 bits.
alias Packed = vec4<u32>;
fn widen(raw: Packed) -> vec4<f32> { return bitcast<vec4<f32>>(raw); }
