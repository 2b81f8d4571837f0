// Weights of IEEE half precision, as they are.
alias Four = vec4<f16>;
const WORDS: u32 = 2u;

fn narrow(raw: Four) -> vec4<f16> { return raw; }
