// Rows of f32 with any number of inputs; zeros beyond the last.
@group(0) @binding(5) var<storage, read> x: array<f32>;

fn row1(row: u32, k: u32) -> f32 {
    if (k >= p.inp) { return 0.0; }
    return x[row * p.inp + k];
}

fn row4(row: u32, k: u32) -> vec4<f32> {
    return vec4(row1(row, k), row1(row, k + 1u), row1(row, k + 2u), row1(row, k + 3u));
}
