// The rows of a norm: what the experts of each gave is added to it first, in the order of its choice, and stays there.
// x: f32 [rows, dim]; y: f32 [rows * top_k, dim]; shares: f32 [rows, top_k]: what each result counts.
// A prelude gives FIRST, the binding of y.

@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(FIRST) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(FIRST + 1u) var<storage, read> shares: array<f32>;

// Results whose loads are on their way at once: fewer where a thread holds more of the row.
const AHEAD: u32 = select(select(1u, 2u, HELD <= 5u), 4u, HELD <= 2u);

fn load_rows(row: u32, local: u32, held: ptr<function, array<vec4<f32>, HELD>>) {
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells) { (*held)[i] = x[row * p.cells + cell]; }
    }
    // These loads are not guarded, so that all are under way at once; what lies beyond the row reads its last vector.
    let last = p.cells - 1u;
    let first = row * p.top_k;
    for (var j = 0u; j < p.top_k; j += AHEAD) {
        var results: array<vec4<f32>, AHEAD * HELD>;
        for (var k = 0u; k < AHEAD; k++) {
            let at = (first + min(j + k, p.top_k - 1u)) * p.cells;
            for (var i = 0u; i < HELD; i++) { results[k * HELD + i] = y[at + min(i * THREADS + local, last)]; }
        }
        for (var k = 0u; k < AHEAD; k++) {
            if (j + k < p.top_k) {
                let share = vec4(shares[first + j + k]);
                for (var i = 0u; i < HELD; i++) { (*held)[i] = fma(results[k * HELD + i], share, (*held)[i]); }
            }
        }
    }
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < p.cells) { x[row * p.cells + cell] = (*held)[i]; }
    }
}
