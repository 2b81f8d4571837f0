// out[i] = x[indices[i]], zeros where the index leaves x.
// x: f32 [source_rows, dim]; indices: u32 [n]; out: f32 [n, dim].
// Launch: (ceil(dim / 256), n) workgroups of 256.

struct Params { source_rows: u32, dim: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let col = group.x * 256u + local;
    if (col >= p.dim) { return; }
    let row = indices[group.y];
    var value = 0.0;
    if (row < p.source_rows) { value = x[row * p.dim + col]; }
    out[group.y * p.dim + col] = value;
}
