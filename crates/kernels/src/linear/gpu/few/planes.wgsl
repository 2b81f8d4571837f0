// Bit planes of quantised weights, a unit at a time: eight chunks (four inputs of 16 outputs each), a-chunks 0..3 and
// b-chunks 0..3. In a block of 16 chunks there are two units (part 0 and 1): part u has chunks 4u..4u+3 (a) and
// 8+4u..8+4u+3 (b); a block of 8 chunks is one unit. So a thread reads 32 inputs of four outputs, and of a row's codes
// two whole vec4. Types give the layout, not index arithmetic: offsets inside a group are then part of the load.
// A plane comes as four vectors x[i], a[i] = x[i] & mask, b[i] = (x[i] >> 4) & mask; planes of fewer than four bits are
// read whole by both units of a block.
// A prelude gives CHUNKS of a block (8 or 16) and BLOCKS of a group (1 or 2).

const PARTS: u32 = CHUNKS / 8u;

// A vector holds a word of each of the 16 outputs, four to a quad.
alias Vector = array<vec4<u32>, 4>;
alias Plane4 = array<array<Vector, 4>, PARTS>;
alias Plane2 = array<Vector, 2u * PARTS>;
alias Plane1 = array<Vector, PARTS>;

alias Vectors = array<vec4<u32>, 4>;

// Where a thread reads: the group among those of the matrices, and its block, part and quad in there. `first` is the
// first group of the panel.
struct Place { group: u32, block: u32, part: u32, quad: u32 }

fn place_of(first: u32, unit: u32, quad: u32) -> Place {
    let block = unit / PARTS;
    return Place(first + block / BLOCKS, block % BLOCKS, unit % PARTS, quad);
}

// The whole of a plane of two bits, as four vectors: the last two count in blocks of 16 chunks only.
fn spread2(v: vec4<u32>, u: vec4<u32>, v2: vec4<u32>, u2: vec4<u32>, part: u32) -> Vectors {
    if (PARTS == 1u) { return Vectors(v, u, v >> vec4(2u), u >> vec4(2u)); }
    let shift = vec4(2u * part);
    return Vectors(v >> shift, u >> shift, v2 >> shift, u2 >> shift);
}

// Likewise a plane of one bit, of two vectors.
fn spread1(v: vec4<u32>, u: vec4<u32>, part: u32) -> Vectors {
    if (PARTS == 1u) { return Vectors(v, v >> vec4(1u), v >> vec4(2u), v >> vec4(3u)); }
    let shift = vec4(2u * part);
    return Vectors(v >> shift, u >> shift, v >> (shift + vec4(1u)), u >> (shift + vec4(1u)));
}

// The chunks of a unit, four codes to a word, a word an output.
struct Codes { a: Vectors, b: Vectors }

fn low(x: vec4<u32>, mask: u32) -> vec4<u32> { return x & vec4(mask); }
fn high(x: vec4<u32>, mask: u32) -> vec4<u32> { return (x >> vec4(4u)) & vec4(mask); }

fn one_plane(x: Vectors, mask: u32) -> Codes {
    return Codes(
        Vectors(low(x[0], mask), low(x[1], mask), low(x[2], mask), low(x[3], mask)),
        Vectors(high(x[0], mask), high(x[1], mask), high(x[2], mask), high(x[3], mask)),
    );
}

fn join(lower: Vectors, upper: Vectors, shift: u32) -> Vectors {
    let s = vec4(shift);
    return Vectors(
        lower[0] | (upper[0] << s), lower[1] | (upper[1] << s), lower[2] | (upper[2] << s), lower[3] | (upper[3] << s),
    );
}

// `upper` comes `shift` bits above `lower`.
fn two_planes(lower: Codes, upper: Codes, shift: u32) -> Codes {
    return Codes(join(lower.a, upper.a, shift), join(lower.b, upper.b, shift));
}
