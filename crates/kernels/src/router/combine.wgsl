// out[row] += Σ_j weights[row, j] · y[row * top_k + j], added in the order of j.
// y: f32 [rows * top_k, dim]; weights: f32 [rows, top_k]; out: f32 [rows, dim]. V is a column, or four where dim is a
// multiple of four; `width` is dim in units of V.
// Launch: (ceil(width / 64), rows along y and z) workgroups of 64: small, so that one row already keeps many units busy.

struct Params { rows: u32, top_k: u32, width: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> y: array<V>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<V>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.z * groups.y + group.y;
    let column = group.x * 64u + local;
    if (row >= p.rows || column >= p.width) { return; }
    var sum = out[row * p.width + column];
    let first = row * p.top_k;
    var j = 0u;
    // Four loads are on their way at once.
    for (; j + 4u <= p.top_k; j += 4u) {
        let at = (first + j) * p.width + column;
        let a = y[at];
        let b = y[at + p.width];
        let c = y[at + 2u * p.width];
        let d = y[at + 3u * p.width];
        sum = fma(a, V(weights[first + j]), sum);
        sum = fma(b, V(weights[first + j + 1u]), sum);
        sum = fma(c, V(weights[first + j + 2u]), sum);
        sum = fma(d, V(weights[first + j + 3u]), sum);
    }
    for (; j < p.top_k; j++) {
        sum = fma(y[(first + j) * p.width + column], V(weights[first + j]), sum);
    }
    out[row * p.width + column] = sum;
}
