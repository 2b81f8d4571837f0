// The row is multiplied as f32. The first workgroup writes what it is in int8.
// codes: i8 [inp]; scales: f32 and sums: i32 [inp / group].

@group(0) @binding(7) var<storage, read_write> codes_out: array<u32>;
@group(0) @binding(8) var<storage, read_write> scales_out: array<u32>; // bits of f32
@group(0) @binding(9) var<storage, read_write> sums_out: array<i32>;

var<workgroup> normed: array<vec4<f32>, CELLS>;
var<private> first_workgroup: bool;

fn keep(row: u32, cell: u32, y: vec4<f32>) { normed[cell] = y; }
fn put_word(row: u32, term: u32, cell: u32, word: u32) { if (first_workgroup) { codes_out[cell] = word; } }
fn put_scale(row: u32, term: u32, group: u32, bits: u32) { if (first_workgroup) { scales_out[group] = bits; } }
fn put_sum(row: u32, term: u32, group: u32, sum: i32) { if (first_workgroup) { sums_out[group] = sum; } }

fn row_values(block: u32, h: u32, part: u32, i: u32) -> vec4<f32> {
    return normed[((block * 2u + h) * PARTS + part) * 4u + i];
}

fn ready(group: vec3<u32>, t: u32) {
    first_workgroup = group.y == 0u && group.z == 0u;
    normalise(0u, t);
    workgroupBarrier();
}
