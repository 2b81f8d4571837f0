// f32 rows to int8 in groups of 32 or 64 columns; with TERMS 2 also what that leaves over, to int8 again.
// x: f32 [rows, dim]; codes: i8 [TERMS rows, dim]; scales: f32 and sums: i32 [TERMS rows, dim / group].
// Row r becomes rows TERMS r and TERMS r + 1.
// Launch: `by_rows(ceil(dim / 256), rows)` workgroups of 64; a thread has four columns.

const CELLS: u32 = 64u;
struct Params { rows: u32, cells: u32, lanes: u32 } // cells: dim / 4; lanes: group / 4
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> codes_out: array<u32>;
@group(0) @binding(2) var<storage, read_write> scales_out: array<u32>; // bits of f32
@group(0) @binding(3) var<storage, read_write> sums_out: array<i32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    let cell = group.x * 64u + local;
    let inside = cell < p.cells;
    var y = vec4<f32>(0.0);
    if (inside) { y = x[row * p.cells + cell]; }
    for (var term = 0u; term < TERMS; term++) {
        put_peak(local, y);
        workgroupBarrier();
        let peak = peak_of(local, p.lanes);
        let codes = codes_of(y, peak);
        put_total(local, codes.word);
        workgroupBarrier();
        let to = (row * TERMS + term) * p.cells + cell;
        if (inside) { codes_out[to] = codes.word; }
        if (inside && cell % p.lanes == 0u) {
            scales_out[to / p.lanes] = scale_of(peak);
            sums_out[to / p.lanes] = total_of(local, p.lanes);
        }
        y -= bitcast<f32>(scale_of(peak)) * codes.values;
    }
}
