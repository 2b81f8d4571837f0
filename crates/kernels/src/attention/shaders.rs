//! GPU kernels of this operation, in every variant.

use bessemer_wgsl::Languages;

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let mut sources = vec![Source::new(
        "attention_merge",
        "",
        &["attention/sight.wgsl", "attention/slot.wgsl", "attention/merge.wgsl"],
    )];
    for (kv, fours, even, odd) in [
        ("f16", "attention/fours_f16.wgsl", "attention/values_even.wgsl", "attention/values_odd_f16.wgsl"),
        ("f32", "attention/fours_f32.wgsl", "attention/values_even.wgsl", "attention/values_odd_f32.wgsl"),
    ] {
        for (width, head_dim, values) in [
            ("64", "64u", even),
            ("128", "128u", even),
            ("any", "p.head_dim", even),
            ("odd", "p.head_dim", odd),
        ] {
            let head_dim = format!("fn head_dim() -> u32 {{ return {head_dim}; }}");
            let exact = width == "64" || width == "128";
            let chunk = if width == "64" { 64 } else { 128 };
            for heads in [2, 4, 8] {
                let wide = std::cmp::min(heads, 4);
                sources.push(Source::new(
                    format!("attention_split_{kv}_{width}_{heads}"),
                    format!(
                        "const HEADS: u32 = {heads}u; const WIDTH: u32 = {wide}u; alias Heads = vec{wide}<f32>; \
                         const CHUNK: u32 = {chunk}u; const EXACT: bool = {exact}; {head_dim}"
                    ),
                    &[
                        "attention/sight.wgsl",
                        "attention/paged.wgsl",
                        fours,
                        values,
                        "attention/slot.wgsl",
                        "attention/split.wgsl",
                    ],
                ));
            }
            for blocks in [1, 2, 4] {
                if exact && blocks * 64 != chunk {
                    continue;
                }
                sources.push(Source::new(
                    format!("attention_tiled_{kv}_{width}_{blocks}"),
                    format!("const BLOCKS: u32 = {blocks}u; {head_dim}"),
                    &["attention/sight.wgsl", "attention/paged.wgsl", fours, values, "attention/tiled.wgsl"],
                ));
            }
        }
    }
    for head_dim in [64, 128] {
        let prelude =
            format!("enable f16; enable wgpu_cooperative_matrix; const HEAD_DIM: u32 = {head_dim}u;");
        let matrix = |form: &str, parts: &[&'static str]| Source {
            languages: Languages::Spirv,
            subgroup_size: Some(32),
            ..Source::new(format!("attention_{form}_matrix_{head_dim}"), prelude.clone(), parts)
        };
        let inputs = ["attention/sight.wgsl", "attention/paged.wgsl"];
        sources.push(matrix("tiled", &[inputs[0], inputs[1], "attention/tiled_matrix.wgsl"]));
        sources.push(matrix(
            "split",
            &[inputs[0], inputs[1], "attention/slot.wgsl", "attention/split_matrix.wgsl"],
        ));
    }
    sources
}
