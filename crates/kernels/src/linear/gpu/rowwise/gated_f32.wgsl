// out[r][i] = act(gate[r][i]) * up[r][i].
// gate, up: f32 views of [rows, dim]; out: f32 [rows, dim]. All counts are in Lanes: single columns, or fours of them.
// Launch: `by_rows(ceil(lanes / 64), rows)` workgroups of 64.

struct View { stride: u32, offset: u32 }
struct Params { rows: u32, dim: u32, gelu: u32, gate: View, up: View }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> gate: array<Lane>;
@group(0) @binding(1) var<storage, read> up: array<Lane>;
@group(0) @binding(2) var<storage, read_write> out: array<Lane>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    let col = group.x * 64u + local;
    if (row >= p.rows || col >= p.dim) { return; }
    let g = gate[row * p.gate.stride + p.gate.offset + col];
    let u = up[row * p.up.stride + p.up.offset + col];
    out[row * p.dim + col] = gated(g, u, p.gelu == 1u);
}
