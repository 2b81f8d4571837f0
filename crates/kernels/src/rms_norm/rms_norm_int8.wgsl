// x / sqrt(mean(x^2) + eps) * weight, row by row, quantised to int8 in groups of 32 or 64 columns; with TERMS 2 also
// what that leaves over, to int8 again.
// x: f32 [rows, dim]; weight: f32 [dim]; codes: i8 [TERMS rows, dim]; scales: f32 and sums: i32
// [TERMS rows, dim / group]; dim a multiple of the group, at most 1024 HELD. Row r becomes rows TERMS r and TERMS r + 1.
// Launch: a workgroup of 256 a row (`by_rows(1, rows)`).
//
// The largest values of the groups are found while the squares are summed: the scale of the norm is one factor for all.

const CELLS: u32 = HELD * THREADS;
@group(0) @binding(2) var<storage, read_write> codes_out: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales_out: array<u32>; // bits of f32
@group(0) @binding(4) var<storage, read_write> sums_out: array<i32>;

// Writes the codes of a vector and, once a group, its scale; `first` is where the row of codes starts, in vectors. Gives
// what the codes leave over.
fn put_codes(first: u32, cell: u32, y: vec4<f32>, peak: u32) -> vec4<f32> {
    let codes = codes_of(y, peak);
    codes_out[first + cell] = pack4xI8(codes);
    put_total(cell, codes);
    if (cell % p.lanes == 0u) { scales_out[(first + cell) / p.lanes] = scale_of(peak); }
    return y - bitcast<f32>(scale_of(peak)) * vec4<f32>(codes);
}

fn put_sums(first: u32, local: u32) {
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells && cell % p.lanes == 0u) { sums_out[(first + cell) / p.lanes] = total_of(cell, p.lanes); }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    let weights = load_weights(local);
    var held: array<vec4<f32>, HELD>;
    load_rows(row, local, &held);
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells) { squares += dot(held[i], held[i]); }
        held[i] *= weights[i];
        put_peak(cell, held[i]);
    }
    let scale = inverseSqrt(workgroup_sum(local, squares) / f32(p.cells * 4u) + p.eps);
    let first = row * TERMS * p.cells;
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells) {
            let peak = bitcast<u32>(bitcast<f32>(peak_of(cell, p.lanes)) * scale) & 0x7fffffffu;
            let y = held[i] * scale;
            keep(row * p.cells + cell, y);
            held[i] = put_codes(first, cell, y, peak);
        }
    }
    workgroupBarrier();
    put_sums(first, local);
    if (TERMS == 2u) {
        for (var i = 0u; i < HELD; i++) { put_peak(i * THREADS + local, held[i]); }
        workgroupBarrier();
        for (var i = 0u; i < HELD; i++) {
            let cell = i * THREADS + local;
            if (cell < p.cells) { put_codes(first + p.cells, cell, held[i], peak_of(cell, p.lanes)); }
        }
        workgroupBarrier();
        put_sums(first + p.cells, local);
    }
}
