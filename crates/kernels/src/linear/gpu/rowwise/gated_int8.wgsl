// act(gate[r][i]) * up[r][i], quantised to int8 in groups of 32 or 64 columns.
// gate, up: f32 views of [rows, dim], of any strides and offsets (`four_any`) or multiples of 4;
// codes: i8 [rows, dim]; scales: f32 and sums: i32 [rows, dim / group].
// Launch: `by_rows(ceil(dim / 256), rows)` workgroups of 64; a thread has four columns.

const CELLS: u32 = 64u;
struct View { stride: u32, offset: u32 } // columns
struct Params { rows: u32, cells: u32, gelu: u32, lanes: u32, gate: View, up: View } // cells: dim / 4; lanes: group / 4
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> gate: array<Stored>;
@group(0) @binding(1) var<storage, read> up: array<Stored>;
@group(0) @binding(2) var<storage, read_write> codes_out: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales_out: array<u32>; // bits of f32
@group(0) @binding(4) var<storage, read_write> sums_out: array<i32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    let cell = group.x * 64u + local;
    let inside = cell < p.cells;
    var y = vec4<f32>(0.0);
    if (inside) {
        let g = four_gates(row * p.gate.stride + p.gate.offset + cell * 4u);
        let u = four_ups(row * p.up.stride + p.up.offset + cell * 4u);
        y = gated(g, u, p.gelu == 1u);
    }
    put_peak(local, y);
    workgroupBarrier();
    let peak = peak_of(local, p.lanes);
    let codes = codes_of(y, peak);
    put_total(local, codes.word);
    workgroupBarrier();
    let to = row * p.cells + cell;
    if (inside) { codes_out[to] = codes.word; }
    if (inside && cell % p.lanes == 0u) {
        scales_out[to / p.lanes] = scale_of(peak);
        sums_out[to / p.lanes] = total_of(local, p.lanes);
    }
}
