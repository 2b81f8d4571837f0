// The row is multiplied as int8, in TERMS terms.

var<workgroup> codes: array<vec4<u32>, TERMS * CELLS / 4u>;
var<workgroup> row_scales: array<f32, TERMS * CELLS / 8u>;
var<workgroup> row_sums: array<i32, TERMS * CELLS / 8u>;

fn keep(row: u32, cell: u32, y: vec4<f32>) {}
fn put_word(row: u32, term: u32, cell: u32, word: u32) { codes[(term * p.steps * 2u) + cell / 4u][cell % 4u] = word; }
fn put_scale(row: u32, term: u32, group: u32, bits: u32) {
    row_scales[term * (p.steps / PARTS) + group] = bitcast<f32>(bits);
}
fn put_sum(row: u32, term: u32, group: u32, sum: i32) { row_sums[term * (p.steps / PARTS) + group] = sum; }

fn row_codes(block: u32, half: u32, part: u32) -> vec4<u32> { return codes[(block * 2u + half) * PARTS + part]; }
fn row_scale(block: u32) -> f32 { return row_scales[block]; }
fn row_sum(block: u32) -> i32 { return row_sums[block]; }

fn ready(group: vec3<u32>, t: u32) {
    normalise(0u, t);
    workgroupBarrier();
}
