//! GPU kernels of this operation, in every variant.

#[path = "variants.rs"]
mod variants;

use self::variants::{CAPACITY, COMBINED_THREADS, Form};
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
                format!("const ROWS: u32 = {rows}u;\nconst SUMS: u32 = {rows}u;\n"),
                &[&PRODUCT[..], &[weights, "linear/gpu/few/plain.wgsl"][..]].concat(),
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
    let layout = format!("const CHUNKS: u32 = {chunks}u;\nconst BLOCKS: u32 = {blocks}u;\n");
    let weights = ["linear/gpu/few/planes.wgsl", codes, scales];
    for form in [Form::Int8, Form::Int8x2, Form::Exact] {
        let terms = if form == Form::Int8x2 { 2 } else { 1 };
        let multiply = match form {
            Form::Exact => &["linear/gpu/few/units.wgsl", "linear/gpu/few/exact.wgsl"][..],
            _ => &["linear/gpu/few/units.wgsl", INT8[0], INT8[1]],
        };
        for rows in form.rows(wide_scales) {
            sources.push(Source::new(
                format!("few_{name}_{}_x{rows}", form.name()),
                format!(
                    "const ROWS: u32 = {rows}u;\nconst SUMS: u32 = {rows}u;\nconst TERMS: u32 = {terms}u;\n{layout}"
                ),
                &[&PRODUCT[..], &weights, multiply].concat(),
            ));
        }
    }
    if !wide_scales {
        sources.push(Source::new(
            format!("few_{name}_gated"),
            format!(
                "const ROWS: u32 = 1u;\nconst SUMS: u32 = 2u;\nconst TERMS: u32 = 1u;\nalias Lane = f32;\n{layout}"
            ),
            &[&EXPERTS[..], &weights, &INT8, &["linear/gpu/few/gated.wgsl"]].concat(),
        ));
        for threads in COMBINED_THREADS {
            sources.push(Source::new(
                format!("few_{name}_combined_{threads}"),
                format!("const THREADS: u32 = {threads}u;\nconst CAPACITY: u32 = {CAPACITY}u;\n{layout}"),
                &[&CHOICES[..], &weights, &["linear/gpu/few/int8.wgsl", "linear/gpu/few/combined.wgsl"]]
                    .concat(),
            ));
        }
    }
    sources
}

/// A product whose results are stored.
const PRODUCT: [&str; 5] = [
    "linear/gpu/few/frame.wgsl",
    "linear/gpu/few/share.wgsl",
    "linear/gpu/few/eight.wgsl",
    "linear/gpu/few/sums.wgsl",
    "linear/gpu/few/store.wgsl",
];
/// Products of experts, one gating the other.
const EXPERTS: [&str; 5] = [
    "linear/gpu/few/frame.wgsl",
    "linear/gpu/few/share.wgsl",
    "linear/gpu/few/eight.wgsl",
    "linear/gpu/few/sums.wgsl",
    "linear/gpu/rowwise/gate.wgsl",
];
/// Products of experts that are added up.
const CHOICES: [&str; 3] = ["linear/gpu/few/frame.wgsl", "linear/gpu/few/eight.wgsl", "gpu/int8.wgsl"];
/// Codes times int8 rows, and the rows.
const INT8: [&str; 2] = ["linear/gpu/few/int8_rows.wgsl", "linear/gpu/few/int8.wgsl"];
