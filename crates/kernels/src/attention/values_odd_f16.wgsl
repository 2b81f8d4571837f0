// Values as half floats; heads of any width, so that a four may lie across words.

@group(0) @binding(2) var<storage, read> values: array<u32>;

fn value(row: u32, d: u32, held: bool) -> u32 {
    if (!held || d >= head_dim()) { return 0u; }
    let at = row * head_dim() + d;
    return values[at / 2u] >> (16u * (at % 2u)) & 0xffffu;
}

// Features d..d + 4 of row `row` of the values, counted through all heads. Zeros unless `held`, or beyond the head.
fn value_four(row: u32, d: u32, held: bool) -> Raw {
    return vec2(
        value(row, d, held) | value(row, d + 1u, held) << 16u,
        value(row, d + 2u, held) | value(row, d + 3u, held) << 16u,
    );
}
