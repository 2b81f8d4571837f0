// Affine codes of 4 bits: one plane.

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

fn unpack(raw: Raw) -> Codes { return one_plane(raw, 0x0f0f0f0fu); }
