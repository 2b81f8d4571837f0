// Rows of f32 whose inputs are a multiple of four.
@group(0) @binding(5) var<storage, read> x: array<vec4<f32>>;

fn row4(row: u32, k: u32) -> vec4<f32> { return x[(row * p.inp + k) / 4u]; }
