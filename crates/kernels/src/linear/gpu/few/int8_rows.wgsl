// Int8 rows as they lie in memory; a row of two terms adds one after the other.
// codes: i8 [rows][TERMS][inp]; row_scales: f32 [rows][TERMS][inp / block]; row_sums: i32, likewise.

@group(0) @binding(5) var<storage, read> codes: array<array<array<vec4<u32>, PARTS>, 2>>;
@group(0) @binding(6) var<storage, read> row_scales: array<f32>;
@group(0) @binding(7) var<storage, read> row_sums: array<i32>;

fn row_codes(block: u32, half: u32, part: u32) -> vec4<u32> { return codes[block][half][part]; }
fn row_scale(block: u32) -> f32 { return row_scales[block]; }
fn row_sum(block: u32) -> i32 { return row_sums[block]; }
