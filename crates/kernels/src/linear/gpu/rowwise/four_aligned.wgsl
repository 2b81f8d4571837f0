// Four columns of a view whose strides and offsets are multiples of four: one load.

alias Stored = vec4<f32>;
fn four_gates(at: u32) -> vec4<f32> { return gate[at / 4u]; }
fn four_ups(at: u32) -> vec4<f32> { return up[at / 4u]; }
