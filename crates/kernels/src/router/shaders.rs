//! GPU kernels of this operation, in every variant.

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let choose = |capacity: u32, threads: u32| {
        Source::new(
            format!("router_{capacity}"),
            format!("const CAPACITY = {capacity}u;\nconst THREADS = {threads}u;\nconst LOGITS = 0u;\n"),
            &["sampling/exponential.wgsl", "router/choose_row.wgsl", "router/choose.wgsl"],
        )
    };
    vec![
        choose(128, 128),
        choose(512, 256),
        choose(2048, 256),
        Source::new("expert_sort", "", &["router/sort.wgsl"]),
        Source::new("combine", "alias V = f32;\n", &["router/combine.wgsl"]),
        Source::new("combine_vec4", "alias V = vec4<f32>;\n", &["router/combine.wgsl"]),
    ]
}
