// Quantised weights to halves: UNIT times scale · code + bias, 8 inputs of 4 outputs a thread. These inputs are those of
// chunks v and v + CHUNKS / 2 of a block (a chunk is four inputs): where codes have four bits, they share a word.
// A step is a block of 8 chunks, or half a block of 16. A chunk has its inputs in the order 0, 2, 1, 3.
// Scales and biases are clamped so that no weight leaves the range of f16: weights beyond 2000 or so become smaller.
// A prelude gives CHUNKS (8 or 16), the bits of the two planes LOW and HIGH, and MXFP4.
@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>;

const UNIT: f32 = 16.0;
const MOST: f32 = 32000.0;
const LARGEST_CODE: f32 = select(f32((1u << (LOW + HIGH)) - 1u), 24.0, MXFP4);

struct Raw {
    low: vec4<u32>,
    // The second word of codes of eight bits.
    more: vec4<u32>,
    high: vec4<u32>,
    scale: vec4<u32>,
    bias: vec4<u32>,
}

// The pair of chunks of a thread, out of its block.
fn pair_of(step: u32, octet: u32) -> u32 {
    if (CHUNKS == 8u) { return octet; }
    return step % 2u * 4u + octet;
}

fn fetch(matrix: u32, step: u32, octet: u32, quad: u32) -> Raw {
    let k = step * 32u;
    let group = (matrix + (k >> p.group_shift) * p.group_stride) / 4u;
    let within = k & ((1u << p.group_shift) - 1u);
    let block = group + within / (4u * CHUNKS) * (CHUNKS * (LOW + HIGH) / 2u);
    let pair = pair_of(step, octet);
    var raw: Raw;
    raw.low = w[block + pair % (CHUNKS * LOW / 8u) * 4u + quad];
    if (LOW == 8u) { raw.more = w[block + (pair + CHUNKS / 2u) * 4u + quad]; }
    if (HIGH > 0u) { raw.high = w[block + CHUNKS * LOW / 2u + pair % max(CHUNKS * HIGH / 8u, 1u) * 4u + quad]; }
    let scales = group + ((LOW + HIGH) << p.group_shift) / 8u;
    if (MXFP4) {
        raw.scale = w[scales];
    } else {
        // A vec4 holds four f32 or eight values of 16 bits.
        let narrow = u32(p.scale_type != 0u);
        raw.scale = w[scales + (quad >> narrow)];
        raw.bias = w[scales + (4u >> narrow) + (quad >> narrow)];
    }
    return raw;
}

fn values(raw: vec4<u32>, quad: u32) -> vec4<f32> {
    let pair = select(raw.xy, raw.zw, quad % 2u == 1u);
    if (p.scale_type == 2u) {
        return bitcast<vec4<f32>>(vec4(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
    } else if (p.scale_type == 1u) {
        return vec4(unpack2x16float(pair.x), unpack2x16float(pair.y));
    }
    return bitcast<vec4<f32>>(raw);
}

// e2m1 codes as 12 + 2 · value. Twice the magnitude of a code n of three bits is n plus what the exponent adds.
fn mxfp4_codes(n: vec4<u32>) -> vec4<u32> {
    let magnitude = n & vec4(0x07070707u);
    let large = (n >> vec4(2u)) & vec4(0x01010101u);
    let both = large & magnitude & (magnitude >> vec4(1u));
    let doubled = magnitude + (magnitude & (large * 3u)) + both + both;
    let negative = ((n >> vec4(3u)) & vec4(0x01010101u)) * 0xffu;
    return vec4(0x0c0c0c0cu) + (doubled & ~negative) - (doubled & negative);
}

// Four codes as 1024 + code, in the order 0, 2, 1, 3: f16 has a unit of 1 there, so that no conversion of integers is needed.
fn raised(codes: u32) -> vec4<f32> {
    let even = unpack2x16float((codes & 0x00ff00ffu) | 0x64006400u);
    let odd = unpack2x16float(((codes >> 8u) & 0x00ff00ffu) | 0x64006400u);
    return vec4(even, odd);
}

fn unpack(raw: Raw, step: u32, octet: u32, quad: u32, at: u32) {
    let pair = pair_of(step, octet);
    let mask = vec4(0x01010101u * ((1u << LOW) - 1u));
    let shift = pair / (CHUNKS * LOW / 8u) * LOW;
    var a = (raw.low >> vec4(shift)) & mask;
    var b = (raw.low >> vec4(shift + 4u)) & mask;
    if (LOW == 8u) {
        a = raw.low;
        b = raw.more;
    }
    if (HIGH > 0u) {
        let high_mask = vec4(0x01010101u * ((1u << HIGH) - 1u));
        let high_shift = pair / max(CHUNKS * HIGH / 8u, 1u) * HIGH;
        a |= ((raw.high >> vec4(high_shift)) & high_mask) << vec4(LOW);
        b |= ((raw.high >> vec4(high_shift + 4u)) & high_mask) << vec4(LOW);
    }
    var scale: vec4<f32>;
    var bias: vec4<f32>;
    if (MXFP4) {
        a = mxfp4_codes(a);
        b = mxfp4_codes(b);
        let word = select(select(raw.scale.x, raw.scale.y, quad == 1u), select(raw.scale.z, raw.scale.w, quad == 3u), quad >= 2u);
        let e8m0 = bitcast<vec4<f32>>(((vec4(word) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu)) << vec4(23u));
        scale = min(e8m0 * (0.5 * UNIT), vec4(MOST / LARGEST_CODE));
        bias = scale * -12.0;
    } else {
        let most = vec4(MOST / LARGEST_CODE);
        scale = clamp(values(raw.scale, quad) * UNIT, -most, most);
        bias = clamp(values(raw.bias, quad) * UNIT, vec4(-MOST), vec4(MOST));
    }
    bias -= 1024.0 * scale;
    for (var i = 0u; i < 4u; i++) {
        let low = fma(raised(a[i]), vec4(scale[i]), vec4(bias[i]));
        let high = fma(raised(b[i]), vec4(scale[i]), vec4(bias[i]));
        put_w(at + i * PITCH, Octet(vec4<f16>(low), vec4<f16>(high)));
    }
}
