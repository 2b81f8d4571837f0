// Weights that are the upper halves of single precision.
alias Packed = vec2<u32>;
fn widen(raw: Packed) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4(raw.x << 16u, raw.x & 0xffff0000u, raw.y << 16u, raw.y & 0xffff0000u));
}
