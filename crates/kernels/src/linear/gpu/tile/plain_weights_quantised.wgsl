// Quantised weights, four inputs of an output: scale · code + bias. Words of w are u32; a group of a panel has its codes in
// blocks of CHUNKS chunks (four inputs of 16 outputs), then scales and biases.
// A prelude gives CHUNKS (8 or 16), the bits of the two planes LOW and HIGH, and MXFP4.
@group(0) @binding(0) var<storage, read> w: array<u32>;

// Four codes of an output, of the plane of `width` bits at `at`.
fn plane4(at: u32, width: u32, chunk: u32, lane: u32) -> u32 {
    let vectors = CHUNKS * width / 8u;
    let word = w[at + chunk % vectors * 16u + lane];
    return (word >> (chunk / vectors * width)) & (0x01010101u * ((1u << width) - 1u));
}

fn scale_at(at: u32, lane: u32) -> f32 {
    if (p.scale_type == 0u) { return bitcast<f32>(w[at + lane]); }
    let word = w[at + lane / 2u];
    if (p.scale_type == 1u) {
        let pair = unpack2x16float(word);
        return select(pair.x, pair.y, lane % 2u == 1u);
    }
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, lane % 2u == 1u));
}

// e2m1 codes as 12 + 2 · value. Twice the magnitude of a code n of three bits is n plus what the exponent adds.
fn mxfp4_codes(n: u32) -> u32 {
    let magnitude = n & 0x07070707u;
    let large = (n >> 2u) & 0x01010101u;
    let doubled = magnitude + (magnitude & (large * 3u)) + 2u * (large & magnitude & (magnitude >> 1u));
    let negative = ((n >> 3u) & 0x01010101u) * 0xffu;
    return 0x0c0c0c0cu + (doubled & ~negative) - (doubled & negative);
}

fn weights4(matrix: u32, k: u32, lane: u32) -> vec4<f32> {
    let group = matrix + (k >> p.group_shift) * p.group_stride;
    let within = k & ((1u << p.group_shift) - 1u);
    let block = group + within / (4u * CHUNKS) * (CHUNKS * 2u * (LOW + HIGH));
    let chunk = within / 4u % CHUNKS;
    var code = plane4(block, LOW, chunk, lane);
    if (HIGH > 0u) { code |= plane4(block + CHUNKS * 2u * LOW, HIGH, chunk, lane) << LOW; }
    let scales = group + ((LOW + HIGH) << p.group_shift) / 2u;
    if (MXFP4) {
        // Exponent 0 reads as zero, 255 as infinity.
        let exponent = (w[scales + lane / 4u] >> (lane % 4u * 8u)) & 0xffu;
        let scale = bitcast<f32>(exponent << 23u);
        return fma(vec4<f32>(unpack4xU8(mxfp4_codes(code))), vec4(scale * 0.5), vec4(scale * -6.0));
    }
    let biases = scales + select(8u, 16u, p.scale_type == 0u);
    return fma(vec4<f32>(unpack4xU8(code)), vec4(scale_at(scales, lane)), vec4(scale_at(biases, lane)));
}
