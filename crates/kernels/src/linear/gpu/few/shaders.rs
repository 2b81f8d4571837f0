//! GPU kernels of this operation, in every variant.

#[path = "variants.rs"]
mod variants;

use self::variants::Form;
use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let mut sources = plain();
    for (bits, codes) in [
        (2, "linear/gpu/few/bits2.wgsl"),
        (3, "linear/gpu/few/bits3.wgsl"),
        (4, "linear/gpu/few/bits4.wgsl"),
        (5, "linear/gpu/few/bits5.wgsl"),
        (6, "linear/gpu/few/bits6.wgsl"),
        (8, "linear/gpu/few/bits8.wgsl"),
    ] {
        for (group, chunks, blocks) in [(32, 8, 1), (64, 16, 1), (128, 16, 2)] {
            for (width, scales) in
                [(16, "linear/gpu/few/affine16.wgsl"), (32, "linear/gpu/few/affine32.wgsl")]
            {
                let name = format!("affine{bits}_{group}_{width}");
                sources.extend(quantised(&name, [chunks, blocks], [codes, scales], width == 32));
            }
        }
    }
    let parts = ["linear/gpu/few/mxfp4.wgsl", "linear/gpu/few/mxfp4_scales.wgsl"];
    sources.extend(quantised("mxfp4", [8, 1], parts, false));
    sources
}

fn plain() -> Vec<Source> {
    let mut sources = vec![];
    for (name, weights) in [
        ("f32", "linear/gpu/few/plain_f32.wgsl"),
        ("f16", "linear/gpu/few/plain_f16.wgsl"),
        ("bf16", "linear/gpu/few/plain_bf16.wgsl"),
    ] {
        for rows in Form::Plain.rows(false) {
            sources.push(Source::new(
                format!("few_{name}_{}_x{rows}", Form::Plain.name()),
                format!("const ROWS: u32 = {rows}u;\n"),
                &["linear/gpu/few/frame.wgsl", weights, "linear/gpu/few/plain.wgsl"],
            ));
        }
    }
    sources
}

fn quantised(
    name: &str,
    [chunks, blocks]: [u32; 2],
    [codes, scales]: [&'static str; 2],
    wide_scales: bool,
) -> Vec<Source> {
    let mut sources = vec![];
    for form in [Form::Int8, Form::Int8x2, Form::Exact] {
        let terms = if form == Form::Int8x2 { 2 } else { 1 };
        let multiply =
            if form == Form::Exact { "linear/gpu/few/exact.wgsl" } else { "linear/gpu/few/int8.wgsl" };
        for rows in form.rows(wide_scales) {
            sources.push(Source::new(
                format!("few_{name}_{}_x{rows}", form.name()),
                format!(
                    "const ROWS: u32 = {rows}u;\nconst TERMS: u32 = {terms}u;\n\
                     const CHUNKS: u32 = {chunks}u;\nconst BLOCKS: u32 = {blocks}u;\n"
                ),
                &[
                    "linear/gpu/few/frame.wgsl",
                    "linear/gpu/few/planes.wgsl",
                    codes,
                    scales,
                    "linear/gpu/few/units.wgsl",
                    multiply,
                ],
            ));
        }
    }
    sources
}
