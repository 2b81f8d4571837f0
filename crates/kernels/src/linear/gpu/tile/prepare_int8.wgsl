// Rows of int8: codes i8 [rows * terms][inp], four to a word; scales f32 [rows * terms][inp / block]. The terms of a row are added up.
@group(0) @binding(2) var<storage, read> codes: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;

fn block() -> u32 { return 8u * p.half_block; }

fn peak_of(row: u32, t: u32) -> u32 {
    let blocks = p.inp / block();
    var peak = 0u;
    for (var i = t; i < blocks; i += THREADS) {
        var scale = scales[row * p.terms * blocks + i];
        if (p.terms == 2u) { scale += scales[(row * 2u + 1u) * blocks + i]; }
        peak = max(peak, bitcast<u32>(scale) & 0x7fffffffu);
    }
    // Infinities and NaN stay what they are.
    if (peak >= 0x7f800000u) { return peak; }
    return bitcast<u32>(bitcast<f32>(peak) * 128.0);
}

fn term(row: u32, k: u32) -> vec4<f32> {
    return scales[row * (p.inp / block()) + k / block()] * vec4<f32>(unpack4xI8(codes[(row * p.inp + k) / 4u]));
}

fn four(row: u32, k: u32) -> vec4<f32> {
    var value = term(row * p.terms, k);
    if (p.terms == 2u) { value += term(row * 2u + 1u, k); }
    return value;
}
