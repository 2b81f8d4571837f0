// Activations to int8, for kernels whose threads hold four columns each: thread `at` columns `4 at .. 4 at + 3`, and
// so a group of 32 or 64 columns is held by `lanes`, 8 or 16, neighbours. Needs `const CELLS`: how many such fours the
// workgroup holds (of several that a thread has, each counts with an `at` of its own); a multiple of 16.
//
// Of each group: d = max|y| / 127, codes round(y · 127 / max|y|) with ties to even, and the sum of the codes. A group
// with an infinity or a NaN has d = NaN and codes 0; one whose largest value is below 1e-30 is zero.
//
// In order: `put_peak`, a barrier, `peak_of`, `codes_of`, `put_total`, a barrier, `total_of`.

var<workgroup> peaks: array<vec4<u32>, CELLS / 4u>;
var<workgroup> totals: array<vec4<i32>, CELLS / 4u>;

const INFINITY_BITS: u32 = 0x7f800000u;
const NAN_BITS: u32 = 0x7fc00000u;
const SMALLEST_BITS: u32 = 0x0da24260u; // 1e-30

// The largest magnitude as bits: compared as integers, magnitudes have their own order, and infinities and NaN come
// out on top.
fn magnitude(y: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(y) & vec4<u32>(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

fn put_peak(at: u32, y: vec4<f32>) {
    peaks[at / 4u][at % 4u] = magnitude(y);
}

// The largest magnitude of the group that `at` is part of.
fn peak_of(at: u32, lanes: u32) -> u32 {
    let first = at / lanes * (lanes / 4u);
    var largest = max(peaks[first], peaks[first + 1u]);
    if (lanes == 16u) { largest = max(largest, max(peaks[first + 2u], peaks[first + 3u])); }
    return max(max(largest.x, largest.y), max(largest.z, largest.w));
}

// The bits of a group's d.
fn scale_of(peak: u32) -> u32 {
    if (peak >= INFINITY_BITS) { return NAN_BITS; }
    if (peak < SMALLEST_BITS) { return 0u; }
    return bitcast<u32>(bitcast<f32>(peak) / 127.0);
}

fn codes_of(y: vec4<f32>, peak: u32) -> vec4<i32> {
    if (peak >= INFINITY_BITS || peak < SMALLEST_BITS) { return vec4<i32>(0); }
    return vec4<i32>(round(y * (127.0 / bitcast<f32>(peak))));
}

fn put_total(at: u32, codes: vec4<i32>) {
    totals[at / 4u][at % 4u] = codes.x + codes.y + codes.z + codes.w;
}

// The sum of the codes of the group that `at` is part of.
fn total_of(at: u32, lanes: u32) -> i32 {
    let first = at / lanes * (lanes / 4u);
    var sum = totals[first] + totals[first + 1u];
    if (lanes == 16u) { sum += totals[first + 2u] + totals[first + 3u]; }
    return (sum.x + sum.y) + (sum.z + sum.w);
}
