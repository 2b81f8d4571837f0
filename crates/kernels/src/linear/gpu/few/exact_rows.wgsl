// f32 rows as they lie in memory.
// x: f32 [rows][inp].

@group(0) @binding(5) var<storage, read> x: array<array<array<array<vec4<f32>, 4>, PARTS>, 2>>;

fn row_values(block: u32, h: u32, part: u32, i: u32) -> vec4<f32> { return x[block][h][part][i]; }
