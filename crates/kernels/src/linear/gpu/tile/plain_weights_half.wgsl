// Weights of 16 bits, [inp][16] a panel; zeros beyond the last input. A prelude gives BF16.
@group(0) @binding(0) var<storage, read> w: array<u32>;

fn weight(matrix: u32, k: u32, lane: u32) -> f32 {
    if (k >= p.inp) { return 0.0; }
    let word = w[matrix + k * 8u + lane / 2u];
    if (BF16) { return bitcast<f32>(select(word << 16u, word & 0xffff0000u, lane % 2u == 1u)); }
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, lane % 2u == 1u);
}

fn weights4(matrix: u32, k: u32, lane: u32) -> vec4<f32> {
    return vec4(weight(matrix, k, lane), weight(matrix, k + 1u, lane), weight(matrix, k + 2u, lane), weight(matrix, k + 3u, lane));
}
