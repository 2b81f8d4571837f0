// Rows of x as the factors of matrix units: halves, and one f32 factor for each row that makes up for what they were multiplied by, a
// power of two that brings the largest to 2^14 or more: so no row leaves the range of f16, whatever is in it. The factor of a row
// with an infinity or a NaN is NaN.
// Inputs are in the order in which unpacking weights gives them: in a block of 2 n chunks (a chunk is four inputs) chunk v is
// followed by chunk v + n, and a chunk has its inputs as 0, 2, 1, 3.
// halves: f16 [rows][steps * 32], as vec4<u32> of eight; factors: f32 [rows].
// Launch: a workgroup of 256 for each row, along y and z (by_rows).
// Parts before it give `peak_of` (the bits of a number not below the magnitudes of a thread's share) and `four` (four inputs).

struct Params {
    inp: u32,
    rows: u32,
    // Rows of codes that make a row.
    terms: u32,
    // Chunks of half a block.
    half_block: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> halves: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;

const THREADS: u32 = 256u;
// What weights are multiplied by: as coop_weights_quantised.wgsl has it.
const UNIT: f32 = 16.0;
var<workgroup> peaks: array<u32, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = row_of(wg);
    if (row >= p.rows) { return; }
    peaks[t] = peak_of(row, t);
    workgroupBarrier();
    for (var width = THREADS / 2u; width > 0u; width /= 2u) {
        if (t < width) { peaks[t] = max(peaks[t], peaks[t + width]); }
        workgroupBarrier();
    }
    let exponent = peaks[0] >> 23u;
    // 2^(14 - e) where the largest is 2^e or more, and its inverse.
    let raise = u32(clamp(268 - i32(exponent), 1, 253));
    let factor = bitcast<f32>(raise << 23u);
    if (t == 0u) {
        let inverse = bitcast<f32>((254u - raise) << 23u) * (1.0 / UNIT);
        factors[row] = select(inverse, bitcast<f32>(0x7fc00000u), exponent == 255u);
    }
    let octets = (p.inp + 31u) / 32u * 4u;
    for (var i = t; i < octets; i += THREADS) {
        let pair = i % p.half_block;
        let k = (i - pair) * 8u + pair * 4u;
        let a = (four(row, k) * factor).xzyw;
        let b = (four(row, k + 4u * p.half_block) * factor).xzyw;
        halves[row * octets + i] = vec4(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw));
    }
}
