// x / sqrt(mean(x^2) + eps) * weight, row by row, quantised to int8 in groups of 32 or 64 columns.
// x: f32 [rows, dim]; weight: f32 [dim]; codes: i8 [rows, dim]; scales: f32 and sums: i32 [rows, dim / group];
// dim a multiple of the group, at most 1024 HELD.
// Launch: a workgroup of 256 a row (`by_rows(1, rows)`). A thread keeps its HELD vectors in registers.
//
// The largest values of the groups are found while the squares are summed: the scale of the norm is one factor for all.

const THREADS: u32 = 256u;
const CELLS: u32 = HELD * THREADS;
struct Params { rows: u32, cells: u32, eps: f32, lanes: u32 } // cells: dim / 4; lanes: group / 4
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> codes_out: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales_out: array<u32>; // bits of f32
@group(0) @binding(4) var<storage, read_write> sums_out: array<i32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    let first = row * p.cells;
    let first_group = first / p.lanes;
    // Loads are not guarded, so that all are under way at once; what lies beyond the row reads its last vector.
    var held: array<vec4<f32>, HELD>;
    var weights: array<vec4<f32>, HELD>;
    for (var i = 0u; i < HELD; i++) {
        let cell = min(i * THREADS + local, p.cells - 1u);
        held[i] = x[first + cell];
        weights[i] = weight[cell];
    }
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells) { squares += dot(held[i], held[i]); }
        held[i] *= weights[i];
        put_peak(cell, held[i]);
    }
    let scale = inverseSqrt(workgroup_sum(local, squares) / f32(p.cells * 4u) + p.eps);
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells) {
            let peak = bitcast<u32>(bitcast<f32>(peak_of(cell, p.lanes)) * scale) & 0x7fffffffu;
            let codes = codes_of(held[i] * scale, peak);
            codes_out[first + cell] = pack4xI8(codes);
            put_total(cell, codes);
            if (cell % p.lanes == 0u) { scales_out[first_group + cell / p.lanes] = scale_of(peak); }
        }
    }
    workgroupBarrier();
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells && cell % p.lanes == 0u) {
            sums_out[first_group + cell / p.lanes] = total_of(cell, p.lanes);
        }
    }
}
