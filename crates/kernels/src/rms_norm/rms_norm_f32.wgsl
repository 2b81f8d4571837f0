// out = x / sqrt(mean(x^2) + eps) * weight, row by row.
// x, out: f32 [rows, dim]; weight: f32 [dim]; dim a multiple of 4, at most 1024 HELD.
// Launch: a workgroup of 256 a row (`by_rows(1, rows)`).

@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    let weights = load_weights(local);
    var held: array<vec4<f32>, HELD>;
    load_rows(row, local, &held);
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
        if (i * THREADS + local < p.cells) { squares += dot(held[i], held[i]); }
    }
    let scale = inverseSqrt(workgroup_sum(local, squares) / f32(p.cells * 4u) + p.eps);
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells) { out[row * p.cells + cell] = held[i] * scale * weights[i]; }
    }
}
