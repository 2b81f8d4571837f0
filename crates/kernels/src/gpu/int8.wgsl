// Activations to int8, for kernels whose threads hold four columns each. A group of 32 or 64 columns is held by `lanes`, 8
// or 16, threads, which find its largest magnitude and the sum of its codes through `int8_groups.wgsl`.
//
// Of each group: d = max|y| / 127, codes round(y · 127 / max|y|) with ties to even, and the sum of the codes. A group
// with an infinity or a NaN has d = NaN and codes 0; one whose largest value is below 1e-30 is zero.

const INFINITY_BITS: u32 = 0x7f800000u;
const NAN_BITS: u32 = 0x7fc00000u;
const SMALLEST_BITS: u32 = 0x0da24260u; // 1e-30

// The largest magnitude as bits: compared as integers, magnitudes have their own order, and infinities and NaN come
// out on top.
fn magnitude(y: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(y) & vec4<u32>(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The bits of a group's d.
fn scale_of(peak: u32) -> u32 {
    if (peak >= INFINITY_BITS) { return NAN_BITS; }
    if (peak < SMALLEST_BITS) { return 0u; }
    return bitcast<u32>(bitcast<f32>(peak) / 127.0);
}

// Four codes: packed, and as numbers.
struct Four { word: u32, values: vec4<f32> }

// Adding this rounds to a whole number, ties to even, which then stands in the lowest bits: that takes none of the
// conversions that GPUs are slow at. It is not taken off again: compilers would leave out both.
const ROUNDING: f32 = 12582912.0; // 1.5 · 2^23

fn codes_of(y: vec4<f32>, peak: u32) -> Four {
    if (peak >= INFINITY_BITS || peak < SMALLEST_BITS) { return Four(0u, vec4(0.0)); }
    let rounded = bitcast<vec4<u32>>(fma(y, vec4(127.0 / bitcast<f32>(peak)), vec4(ROUNDING)));
    let bytes = (rounded & vec4(0xffu)) << vec4(0u, 8u, 16u, 24u);
    let word = (bytes.x | bytes.y) | (bytes.z | bytes.w);
    return Four(word, vec4<f32>(unpack4xI8(word)));
}

// The sum of four codes.
fn total_of_four(word: u32) -> i32 { return dot4I8Packed(word, 0x01010101u); }
