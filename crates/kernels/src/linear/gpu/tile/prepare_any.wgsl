// Rows of f32 with any number of inputs; zeros beyond the last.
@group(0) @binding(2) var<storage, read> x: array<f32>;

fn peak_of(row: u32, t: u32) -> u32 {
    var peak = 0u;
    for (var k = t; k < p.inp; k += THREADS) { peak = max(peak, bitcast<u32>(x[row * p.inp + k]) & 0x7fffffffu); }
    return peak;
}

fn one(row: u32, k: u32) -> f32 {
    if (k >= p.inp) { return 0.0; }
    return x[row * p.inp + k];
}

fn four(row: u32, k: u32) -> vec4<f32> { return vec4(one(row, k), one(row, k + 1u), one(row, k + 2u), one(row, k + 3u)); }
