// Weights of single precision: UNIT times their value, clamped to the range of f16.
alias Four = vec4<f32>;
const WORDS: u32 = 4u;

fn narrow(raw: Four) -> vec4<f16> { return vec4<f16>(clamp(raw * 16.0, vec4(-65504.0), vec4(65504.0))); }
