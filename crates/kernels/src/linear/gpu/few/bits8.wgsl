// Affine codes of 8 bits: a byte each, b-chunks half a block behind a-chunks.

const BITS: u32 = 8u;
struct Block { codes: array<Plane4, 2> }
alias Raw = Codes;

fn fetch_codes(at: Place) -> Raw {
    let a = Vectors(
        w[at.group].blocks[at.block].codes[0][at.part][0][at.quad],
        w[at.group].blocks[at.block].codes[0][at.part][1][at.quad],
        w[at.group].blocks[at.block].codes[0][at.part][2][at.quad],
        w[at.group].blocks[at.block].codes[0][at.part][3][at.quad],
    );
    let b = Vectors(
        w[at.group].blocks[at.block].codes[1][at.part][0][at.quad],
        w[at.group].blocks[at.block].codes[1][at.part][1][at.quad],
        w[at.group].blocks[at.block].codes[1][at.part][2][at.quad],
        w[at.group].blocks[at.block].codes[1][at.part][3][at.quad],
    );
    return Codes(a, b);
}

fn unpack(raw: Raw) -> Codes { return raw; }
