// Affine codes of 2 bits: one plane.

const BITS: u32 = 2u;
struct Block { codes: Plane2 }
alias Raw = Vectors;

fn fetch_codes(at: Place) -> Raw {
    return spread2(
        w[at.group].blocks[at.block].codes[0][at.quad],
        w[at.group].blocks[at.block].codes[1][at.quad],
        w[at.group].blocks[at.block].codes[2u * PARTS - 2u][at.quad],
        w[at.group].blocks[at.block].codes[2u * PARTS - 1u][at.quad],
        at.part,
    );
}

fn unpack(raw: Raw) -> Codes { return one_plane(raw, 0x03030303u); }
