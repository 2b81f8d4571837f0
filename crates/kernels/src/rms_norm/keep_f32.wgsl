// A norm that is quantised goes out as f32, too: f32 [rows, dim].

@group(0) @binding(5) var<storage, read_write> kept: array<vec4<f32>>;
fn keep(row: u32, cell: u32, y: vec4<f32>) { kept[row * cells() + cell] = y; }
