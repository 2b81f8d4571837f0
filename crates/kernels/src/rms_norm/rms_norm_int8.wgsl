// Norms of rows, quantised to int8: `int8_row.wgsl`, row by row.
// codes: i8 [TERMS rows, dim]; scales: f32 and sums: i32 [TERMS rows, dim / group]. Row r becomes rows TERMS r and
// TERMS r + 1.
// Launch: a workgroup of 256 a row (`by_rows(1, rows)`).

@group(0) @binding(2) var<storage, read_write> codes_out: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales_out: array<u32>; // bits of f32
@group(0) @binding(4) var<storage, read_write> sums_out: array<i32>;

fn put_word(row: u32, term: u32, cell: u32, word: u32) { codes_out[(row * TERMS + term) * p.cells + cell] = word; }

fn put_scale(row: u32, term: u32, group: u32, bits: u32) {
    scales_out[(row * TERMS + term) * (p.cells / p.lanes) + group] = bits;
}

fn put_sum(row: u32, term: u32, group: u32, sum: i32) {
    sums_out[(row * TERMS + term) * (p.cells / p.lanes) + group] = sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    normalise(row, local);
}
