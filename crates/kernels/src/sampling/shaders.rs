//! GPU kernels of this operation, in every variant.

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let choose = |threads: u32| {
        Source::new(
            format!("sample_choose_{threads}"),
            format!("const THREADS = {threads}u;\n"),
            &[
                "sampling/exponential.wgsl",
                "sampling/row.wgsl",
                "sampling/wide.wgsl",
                "sampling/choose_frame.wgsl",
                "sampling/scan.wgsl",
                "sampling/bins.wgsl",
                "sampling/descend.wgsl",
                "sampling/draw_slices.wgsl",
                "sampling/choose.wgsl",
            ],
        )
    };
    vec![
        choose(256),
        choose(512),
        Source::new(
            "sample_summarise",
            "",
            &["sampling/exponential.wgsl", "sampling/row.wgsl", "sampling/summarise.wgsl"],
        ),
    ]
}
