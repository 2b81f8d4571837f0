// Rows of f32 whose inputs are a multiple of four; zeros beyond the last.
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;

fn peak_of(row: u32, t: u32) -> u32 {
    var peak = vec4(0u);
    let fours = p.inp / 4u;
    for (var i = t; i < fours; i += THREADS) {
        peak = max(peak, bitcast<vec4<u32>>(x[row * fours + i]) & vec4(0x7fffffffu));
    }
    return max(max(peak.x, peak.y), max(peak.z, peak.w));
}

fn four(row: u32, k: u32) -> vec4<f32> {
    if (k >= p.inp) { return vec4(0.0); }
    return x[(row * p.inp + k) / 4u];
}
