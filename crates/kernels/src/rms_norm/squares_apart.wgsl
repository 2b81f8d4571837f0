// The squares of a row that more than 256 threads hold: what each of the first 256 has of them, in the order in which a
// workgroup of 256 adds them up.

var<workgroup> cell_squares: array<f32, HELD * THREADS>;

fn squares_of(local: u32, held: ptr<function, array<vec4<f32>, HELD>>) -> f32 {
    for (var i = 0u; i < HELD; i++) { cell_squares[i * THREADS + local] = dot((*held)[i], (*held)[i]); }
    workgroupBarrier();
    var squares = 0.0;
    if (local < 256u) {
        for (var cell = local; cell < min(cells(), HELD * THREADS); cell += 256u) { squares += cell_squares[cell]; }
    }
    return squares;
}
