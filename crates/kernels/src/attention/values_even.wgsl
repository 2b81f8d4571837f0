// Values; heads of whole fours.

@group(0) @binding(2) var<storage, read> values: array<Raw>;

// Features d..d + 4 of row `row` of the values, counted through all heads. Zeros unless `held`, or beyond the head.
fn value_four(row: u32, d: u32, held: bool) -> Raw {
    let wanted = held && d < head_dim();
    return select(Raw(), values[select(0u, (row * head_dim() + d) / 4u, wanted)], wanted);
}
