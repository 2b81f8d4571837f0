// Which columns of a head turn together: i with i + rot / 2, or, interleaved, 2 i with 2 i + 1.

// The pair that a column belongs to: its place among cosines and sines.
fn pair_of(col: u32, rot: u32, interleaved: u32) -> u32 {
    return select(col % (rot / 2u), col / 2u, interleaved == 1u);
}

// Whether a column is the first of its pair, which turns against the second.
fn is_first(col: u32, rot: u32, interleaved: u32) -> bool {
    return select(col < rot / 2u, col % 2u == 0u, interleaved == 1u);
}

// The other column of a pair.
fn other_of(col: u32, rot: u32, interleaved: u32) -> u32 {
    let step = select(rot / 2u, 1u, interleaved == 1u);
    return select(col - step, col + step, is_first(col, rot, interleaved));
}

// What a column becomes.
fn turned(x: f32, other: f32, first: bool, cosine: f32, sine: f32) -> f32 {
    return fma(x, cosine, select(other, -other, first) * sine);
}
