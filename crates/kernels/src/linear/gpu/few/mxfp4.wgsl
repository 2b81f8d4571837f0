// e2m1 codes, as affine codes: a weight is (scale / 2) * u - 6 * scale with u = 12 + 2 * value.

const BITS: u32 = 4u;
struct Block { codes: Plane4 }
alias Raw = Vectors;

fn fetch_codes(at: Place) -> Raw {
    return Vectors(
        w[at.group].blocks[at.block].codes[at.part][0][at.quad],
        w[at.group].blocks[at.block].codes[at.part][1][at.quad],
        w[at.group].blocks[at.block].codes[at.part][2][at.quad],
        w[at.group].blocks[at.block].codes[at.part][3][at.quad],
    );
}

// Four codes to the bytes u. Twice the magnitude of code n (three bits) is n plus what the exponent adds.
fn to_bytes(n: vec4<u32>) -> vec4<u32> {
    let large = (n >> vec4(2u)) & vec4(0x01010101u);
    let low_bits = n & (large * vec4(3u));
    let both = n & (n >> vec4(1u)) & large;
    let magnitude = (n & vec4(0x07070707u)) + low_bits + both + both;
    let negative = ((n >> vec4(3u)) & vec4(0x01010101u)) * vec4(0xffu);
    return vec4(0x0c0c0c0cu) + (magnitude & ~negative) - (magnitude & negative);
}

fn unpack(raw: Raw) -> Codes {
    let codes = one_plane(raw, 0x0f0f0f0fu);
    return Codes(
        Vectors(to_bytes(codes.a[0]), to_bytes(codes.a[1]), to_bytes(codes.a[2]), to_bytes(codes.a[3])),
        Vectors(to_bytes(codes.b[0]), to_bytes(codes.b[1]), to_bytes(codes.b[2]), to_bytes(codes.b[3])),
    );
}
