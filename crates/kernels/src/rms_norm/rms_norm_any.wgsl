// out = x / sqrt(mean(x^2) + eps) * weight, row by row, for rows of any length.
// x, out: f32 [rows, dim]; weight: f32 [dim].
// Launch: a workgroup of 256 a row (`by_rows(1, rows)`). Reads x twice.

struct Params { rows: u32, dim: u32, eps: f32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    let first = row * p.dim;
    var squares = 0.0;
    for (var i = local; i < p.dim; i += 256u) { squares += x[first + i] * x[first + i]; }
    let scale = inverseSqrt(workgroup_sum(local, squares) / f32(p.dim) + p.eps);
    for (var i = local; i < p.dim; i += 256u) { out[first + i] = x[first + i] * scale * weight[i]; }
}
