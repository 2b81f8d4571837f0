// What the norms of whole rows share: a workgroup of 256 has a row, and a thread keeps HELD vectors of it in registers.

const THREADS: u32 = 256u;
struct Params {
    rows: u32,
    cells: u32, // dim / 4
    eps: f32,
    // Int8: vectors that share a scale, group / 4.
    lanes: u32,
    // Experts whose results join a row.
    top_k: u32,
}
var<immediate> p: Params;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

fn load_weights(local: u32) -> array<vec4<f32>, HELD> {
    var weights: array<vec4<f32>, HELD>;
    for (var i = 0u; i < HELD; i++) { weights[i] = weight[min(i * THREADS + local, p.cells - 1u)]; }
    return weights;
}
