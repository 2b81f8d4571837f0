// Weights of 32 bits, [inp][16] a panel; zeros beyond the last input.
@group(0) @binding(0) var<storage, read> w: array<f32>;

fn weight(matrix: u32, k: u32, lane: u32) -> f32 {
    if (k >= p.inp) { return 0.0; }
    return w[matrix + k * 16u + lane];
}

fn weights4(matrix: u32, k: u32, lane: u32) -> vec4<f32> {
    return vec4(weight(matrix, k, lane), weight(matrix, k + 1u, lane), weight(matrix, k + 2u, lane), weight(matrix, k + 3u, lane));
}
