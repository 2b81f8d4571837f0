// The squares of a row: what each of 256 threads has of them.

fn squares_of(local: u32, held: ptr<function, array<vec4<f32>, HELD>>) -> f32 {
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
        if (i * THREADS + local < cells()) { squares += dot((*held)[i], (*held)[i]); }
    }
    return squares;
}
