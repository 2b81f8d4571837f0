// f32 to f16 as a KV cache stores it: what is too large becomes the largest finite value, NaN stays.

fn narrow(x: f32) -> f16 {
    let nan = (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
    return f16(select(clamp(x, -65504.0, 65504.0), x, nan));
}
