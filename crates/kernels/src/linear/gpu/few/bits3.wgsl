// Affine codes of 3 bits: a plane of 2 and one of 1.

const BITS: u32 = 3u;
struct Block { lower: Plane2, upper: Plane1 }
struct Raw { lower: Vectors, upper: Vectors }

fn fetch_codes(at: Place) -> Raw {
    let lower = spread2(
        w[at.group].blocks[at.block].lower[0][at.quad],
        w[at.group].blocks[at.block].lower[1][at.quad],
        w[at.group].blocks[at.block].lower[2u * PARTS - 2u][at.quad],
        w[at.group].blocks[at.block].lower[2u * PARTS - 1u][at.quad],
        at.part,
    );
    let upper = spread1(
        w[at.group].blocks[at.block].upper[0][at.quad],
        w[at.group].blocks[at.block].upper[PARTS - 1u][at.quad],
        at.part,
    );
    return Raw(lower, upper);
}

fn unpack(raw: Raw) -> Codes {
    return two_planes(one_plane(raw.lower, 0x03030303u), one_plane(raw.upper, 0x01010101u), 2u);
}
