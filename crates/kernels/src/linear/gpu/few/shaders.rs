//! GPU kernels of this operation, in every variant.

#[path = "variants.rs"]
mod variants;

use bessemer_wgsl::Languages;

use self::variants::{CAPACITY, CHOSEN, COMBINED_THREADS, Form, NORMED_COLUMNS};
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
                format!(
                    "const THREADS: u32 = 256u;\nconst ROWS: u32 = {rows}u;\nconst SUMS: u32 = {rows}u;\n"
                ),
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
            Form::Exact => &EXACT[..],
            _ => &INT8[..],
        };
        for rows in form.rows(wide_scales) {
            sources.push(Source::new(
                format!("few_{name}_{}_x{rows}", form.name()),
                format!(
                    "const THREADS: u32 = 256u;\nconst ROWS: u32 = {rows}u;\nconst SUMS: u32 = {rows}u;\nconst TERMS: u32 = {terms}u;\n\
                     {layout}"
                ),
                &[&PRODUCT[..], &weights, &UNITS, multiply].concat(),
            ));
        }
        if !wide_scales {
            let (to, multiply) = match form {
                Form::Exact => ("linear/gpu/few/normed_f32.wgsl", &EXACT[1..]),
                _ => ("linear/gpu/few/normed_int8.wgsl", &INT8[1..]),
            };
            for &threads in form.normed_threads() {
                let held = NORMED_COLUMNS / 4 / threads;
                let squares =
                    if held == 1 { "rms_norm/squares_apart.wgsl" } else { "rms_norm/squares_256.wgsl" };
                let row = [squares, "rms_norm/int8_row.wgsl", to];
                let source = Source::new(
                    format!("few_{name}_{}_normed_{threads}", form.name()),
                    format!(
                        "const THREADS: u32 = {threads}u;\nconst ROWS: u32 = 1u;\nconst SUMS: u32 = 1u;\n\
                         const TERMS: u32 = {terms}u;\nconst HELD: u32 = {held}u;\nconst X: u32 = 5u;\n\
                         const WEIGHT: u32 = 6u;\n{layout}"
                    ),
                    &[&PRODUCT[..], &weights, &NORMED, &row, multiply, &["linear/gpu/few/units_normed.wgsl"]]
                        .concat(),
                );
                // Apple's GPUs have not the memory for so many.
                let languages = if threads > 256 { Languages::Spirv } else { Languages::All };
                sources.push(Source { languages, ..source });
            }
        }
    }
    if !wide_scales {
        let gated = format!(
            "const THREADS: u32 = 256u;\nconst ROWS: u32 = 1u;\nconst SUMS: u32 = 2u;\nconst TERMS: u32 = 1u;\n\
             alias Lane = f32;\n{layout}"
        );
        sources.push(Source::new(
            format!("few_{name}_gated"),
            gated.clone(),
            &[&GIVEN[..], &EXPERTS, &weights, &INT8, &["linear/gpu/few/gated_given.wgsl"]].concat(),
        ));
        sources.push(Source::new(
            format!("few_{name}_gated_chosen"),
            gated + &format!("const CAPACITY: u32 = {CHOSEN}u;\nconst LOGITS: u32 = 8u;\n"),
            &[&CHOSEN_FIRST[..], &EXPERTS, &weights, &INT8, &["linear/gpu/few/gated_chosen.wgsl"]].concat(),
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
const PRODUCT: [&str; 6] = [
    "linear/gpu/few/frame.wgsl",
    "linear/gpu/few/ids_given.wgsl",
    "linear/gpu/few/share.wgsl",
    "linear/gpu/few/eight.wgsl",
    "linear/gpu/few/sums.wgsl",
    "linear/gpu/few/store.wgsl",
];
/// Products of experts, one gating the other.
const EXPERTS: [&str; 5] = [
    "linear/gpu/few/share.wgsl",
    "linear/gpu/few/eight.wgsl",
    "linear/gpu/few/sums.wgsl",
    "linear/gpu/rowwise/gate.wgsl",
    "linear/gpu/few/gated.wgsl",
];
/// Experts that were chosen before, and experts that are chosen first.
const GIVEN: [&str; 2] = ["linear/gpu/few/frame.wgsl", "linear/gpu/few/ids_given.wgsl"];
const CHOSEN_FIRST: [&str; 4] = [
    "linear/gpu/few/frame.wgsl",
    "sampling/exponential.wgsl",
    "router/choose_row.wgsl",
    "linear/gpu/few/ids_chosen.wgsl",
];
/// Products of experts that are added up.
const CHOICES: [&str; 4] = [
    "linear/gpu/few/frame.wgsl",
    "linear/gpu/few/ids_given.wgsl",
    "linear/gpu/few/eight.wgsl",
    "gpu/int8.wgsl",
];
/// A row that is normalised first.
const NORMED: [&str; 6] = [
    "linear/gpu/few/normed.wgsl",
    "rms_norm/weights.wgsl",
    "rms_norm/rows_given.wgsl",
    "gpu/sum_256.wgsl",
    "gpu/int8.wgsl",
    "gpu/int8_groups.wgsl",
];
/// Rows as they lie in memory, and codes times them: int8 and f32.
const INT8: [&str; 3] =
    ["linear/gpu/few/int8_rows.wgsl", "linear/gpu/few/int8_sums.wgsl", "linear/gpu/few/int8.wgsl"];
const EXACT: [&str; 2] = ["linear/gpu/few/exact_rows.wgsl", "linear/gpu/few/exact.wgsl"];
/// The loop around it.
const UNITS: [&str; 1] = ["linear/gpu/few/units.wgsl"];
