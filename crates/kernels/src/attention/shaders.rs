//! GPU kernels of this operation, in every variant.

use bessemer_wgsl::Languages;

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let mut sources = vec![];
    for to in [F32, INT8] {
        sources.push(Source::new(
            format!("attention_merge{}", to.suffix),
            "const OUT: u32 = 3u; const EXACT: bool = false; const CELLS: u32 = 256u; \
             fn head_dim() -> u32 { return p.head_dim; }",
            &to.parts(&["attention/sight.wgsl", "attention/slot.wgsl"], "attention/merge.wgsl"),
        ));
    }
    let even = "attention/values_even.wgsl";
    for (kv, fours, odd) in [
        ("f16", "attention/fours_f16.wgsl", "attention/values_odd_f16.wgsl"),
        ("f32", "attention/fours_f32.wgsl", "attention/values_odd_f32.wgsl"),
    ] {
        for (width, head_dim, values) in [
            ("64", "64u", even),
            ("128", "128u", even),
            ("any", "p.head_dim", even),
            ("odd", "p.head_dim", odd),
        ] {
            let head_dim =
                format!("{} fn head_dim() -> u32 {{ return {head_dim}; }}", cache("read", values == even));
            let exact = width == "64" || width == "128";
            let chunk = if width == "64" { 64 } else { 128 };
            for heads in [2, 4, 8] {
                let wide = std::cmp::min(heads, 4);
                let prelude = format!(
                    "const HEADS: u32 = {heads}u; const WIDTH: u32 = {wide}u; alias Heads = vec{wide}<f32>; \
                     const CHUNK: u32 = {chunk}u; const EXACT: bool = {exact}; const OUT: u32 = 6u; {head_dim}"
                );
                let inputs = [
                    "attention/sight.wgsl",
                    "attention/paged.wgsl",
                    fours,
                    values,
                    "attention/slot.wgsl",
                    "attention/given.wgsl",
                ];
                for to in [F32, INT8] {
                    // Groups of int8 rows have whole fours.
                    if width != "odd" || to.suffix.is_empty() {
                        sources.push(Source::new(
                            format!("attention_split_{kv}_{width}_{heads}{}", to.suffix),
                            prelude.clone(),
                            &to.parts(&inputs, "attention/split.wgsl"),
                        ));
                    }
                }
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
    sources.extend(turned());
    for head_dim in [64, 128] {
        let prelude = format!(
            "enable f16; enable wgpu_cooperative_matrix; const HEAD_DIM: u32 = {head_dim}u; const OUT: u32 = 6u; \
             const EXACT: bool = true; fn head_dim() -> u32 {{ return HEAD_DIM; }}"
        );
        let matrix = |form: &str, parts: &[&'static str]| Source {
            languages: Languages::Spirv,
            subgroup_size: Some(32),
            ..Source::new(format!("attention_{form}_matrix_{head_dim}"), prelude.clone(), parts)
        };
        let inputs = ["attention/sight.wgsl", "attention/paged.wgsl"];
        sources.push(matrix("tiled", &[inputs[0], inputs[1], "attention/tiled_matrix.wgsl"]));
        let inputs = [inputs[0], inputs[1], "attention/slot.wgsl"];
        sources.push(matrix("split", &F32.parts(&inputs, "attention/split_matrix.wgsl")));
    }
    sources
}

/// The split kernels that turn the heads of a single row themselves.
fn turned() -> Vec<Source> {
    let mut sources = vec![];
    for (kv, enable, narrow, fours, raw) in [
        ("f16", "enable f16;", "gpu/half.wgsl", "attention/fours_f16.wgsl", "attention/raw_f16.wgsl"),
        ("f32", "", "gpu/single.wgsl", "attention/fours_f32.wgsl", "attention/raw_f32.wgsl"),
    ] {
        for (head_dim, heads) in [(64, 2), (64, 4), (128, 2), (128, 4)] {
            let prelude = format!(
                "{enable} {} const HEADS: u32 = {heads}u; const WIDTH: u32 = {heads}u; \
                 alias Heads = vec{heads}<f32>; const CHUNK: u32 = {head_dim}u; const EXACT: bool = true; \
                 const OUT: u32 = 12u; fn head_dim() -> u32 {{ return {head_dim}u; }}",
                cache("read_write", true)
            );
            let inputs = [
                "attention/sight.wgsl",
                "attention/paged.wgsl",
                fours,
                "attention/values_even.wgsl",
                "gpu/tree_64.wgsl",
                narrow,
                raw,
                "rope/pairs.wgsl",
                "attention/turned.wgsl",
            ];
            for to in [F32, INT8] {
                sources.push(Source::new(
                    format!("attention_turned_{kv}_{head_dim}_{heads}{}", to.suffix),
                    prelude.clone(),
                    &to.parts(&inputs, "attention/split.wgsl"),
                ));
            }
        }
    }
    sources
}

/// The bindings of a cache that is only read, or also written; of odd heads the values are bound by who reads them.
fn cache(access: &str, even: bool) -> String {
    let binding =
        |at: u32, name: &str| format!("@group(0) @binding({at}) var<storage, {access}> {name}: array<Raw>;");
    if even { format!("{} {}", binding(1, "keys"), binding(2, "values")) } else { binding(1, "keys") }
}

/// How finished rows go out.
struct To {
    /// Of the kernel's name.
    suffix: &'static str,
    parts: &'static [&'static str],
}

const F32: To = To { suffix: "", parts: &["attention/out_f32.wgsl"] };
const INT8: To =
    To { suffix: "_int8", parts: &["gpu/int8.wgsl", "gpu/int8_groups.wgsl", "attention/out_int8.wgsl"] };

impl To {
    /// The parts of a kernel, whose `main` comes last.
    fn parts(&self, inputs: &[&'static str], main: &'static str) -> Vec<&'static str> {
        [inputs, self.parts, &[main]].concat()
    }
}
