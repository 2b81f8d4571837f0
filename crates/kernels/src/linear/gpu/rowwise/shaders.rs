//! GPU kernels of this operation, in every variant.

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    const GRID: &str = "gpu/grid.wgsl";
    const INT8: &str = "gpu/int8.wgsl";
    const GROUPS: &str = "gpu/int8_groups.wgsl";
    const GATE: &str = "linear/gpu/rowwise/gate.wgsl";
    const FOUR_LANES: &str = "alias Lane = vec4<f32>;";
    let gated_f32 = [GRID, GATE, "linear/gpu/rowwise/gated_f32.wgsl"];
    let gated_int8 = |load| [GRID, INT8, GROUPS, GATE, load, "linear/gpu/rowwise/gated_int8.wgsl"];
    let quantise = [GRID, INT8, GROUPS, "linear/gpu/rowwise/quantise.wgsl"];
    vec![
        Source::new("quantise_1", "const TERMS: u32 = 1u;", &quantise),
        Source::new("quantise_2", "const TERMS: u32 = 2u;", &quantise),
        Source::new("gated_f32_aligned", FOUR_LANES, &gated_f32),
        Source::new("gated_f32_any", "alias Lane = f32;", &gated_f32),
        Source::new("gated_int8_aligned", FOUR_LANES, &gated_int8("linear/gpu/rowwise/four_aligned.wgsl")),
        Source::new("gated_int8_any", FOUR_LANES, &gated_int8("linear/gpu/rowwise/four_any.wgsl")),
        Source::new("embedding_plain", "", &[GRID, "linear/gpu/rowwise/embedding_plain.wgsl"]),
        Source::new("embedding_codes", "", &[GRID, "linear/gpu/rowwise/embedding_codes.wgsl"]),
    ]
}
