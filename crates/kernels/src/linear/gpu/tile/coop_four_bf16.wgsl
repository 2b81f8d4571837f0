// Weights that are the upper halves of single precision: UNIT times their value, clamped to the range of f16.
alias Four = vec2<u32>;
const WORDS: u32 = 2u;

fn narrow(raw: Four) -> vec4<f16> {
    let value = bitcast<vec4<f32>>(vec4(raw.x << 16u, raw.x & 0xffff0000u, raw.y << 16u, raw.y & 0xffff0000u));
    return vec4<f16>(clamp(value * 16.0, vec4(-65504.0), vec4(65504.0)));
}
