// Values; heads of whole fours.

// Features d..d + 4 of row `row` of the values, counted through all heads. Zeros unless `held`, or beyond the head.
fn value_four(row: u32, d: u32, held: bool) -> Raw {
    let wanted = held && d < head_dim();
    return select(Raw(), values[select(0u, (row * head_dim() + d) / 4u, wanted)], wanted);
}
