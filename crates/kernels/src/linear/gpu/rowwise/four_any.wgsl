// Four columns of any view.

alias Stored = f32;
fn four_gates(at: u32) -> vec4<f32> { return vec4<f32>(gate[at], gate[at + 1u], gate[at + 2u], gate[at + 3u]); }
fn four_ups(at: u32) -> vec4<f32> { return vec4<f32>(up[at], up[at + 1u], up[at + 2u], up[at + 3u]); }
