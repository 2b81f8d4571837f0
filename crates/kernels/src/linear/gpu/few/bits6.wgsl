// Affine codes of 6 bits: a plane of 4 and one of 2.

const BITS: u32 = 6u;
struct Block { lower: Plane4, upper: Plane2 }
struct Raw { lower: Vectors, upper: Vectors }

fn fetch_codes(at: Place) -> Raw {
    let lower = Vectors(
        w[at.group].blocks[at.block].lower[at.part][0][at.quad],
        w[at.group].blocks[at.block].lower[at.part][1][at.quad],
        w[at.group].blocks[at.block].lower[at.part][2][at.quad],
        w[at.group].blocks[at.block].lower[at.part][3][at.quad],
    );
    let upper = spread2(
        w[at.group].blocks[at.block].upper[0][at.quad],
        w[at.group].blocks[at.block].upper[1][at.quad],
        w[at.group].blocks[at.block].upper[2u * PARTS - 2u][at.quad],
        w[at.group].blocks[at.block].upper[2u * PARTS - 1u][at.quad],
        at.part,
    );
    return Raw(lower, upper);
}

fn unpack(raw: Raw) -> Codes {
    return two_planes(one_plane(raw.lower, 0x0f0f0f0fu), one_plane(raw.upper, 0x03030303u), 4u);
}
