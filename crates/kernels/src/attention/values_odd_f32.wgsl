// Values as f32; heads of any width.

@group(0) @binding(2) var<storage, read> values: array<f32>;

fn value(row: u32, d: u32, held: bool) -> f32 {
    if (!held || d >= head_dim()) { return 0.0; }
    return values[row * head_dim() + d];
}

// Features d..d + 4 of row `row` of the values, counted through all heads. Zeros unless `held`, or beyond the head.
fn value_four(row: u32, d: u32, held: bool) -> Raw {
    return vec4(value(row, d, held), value(row, d + 1u, held), value(row, d + 2u, held), value(row, d + 3u, held));
}
