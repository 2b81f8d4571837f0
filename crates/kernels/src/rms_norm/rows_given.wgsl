// The rows of a norm: they are there.
// x: f32 [rows, dim]. A prelude gives X, its binding.

@group(0) @binding(X) var<storage, read> x: array<vec4<f32>>;

fn load_rows(row: u32, local: u32, held: ptr<function, array<vec4<f32>, HELD>>) {
    // Loads are not guarded, so that all are under way at once; what lies beyond the row reads its last vector.
    for (var i = 0u; i < HELD; i++) { (*held)[i] = x[row * cells() + min(i * THREADS + local, cells() - 1u)]; }
}
