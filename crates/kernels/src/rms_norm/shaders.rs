//! GPU kernels of this operation, in every variant.

#[path = "variants.rs"]
mod variants;

use self::variants::{From, HELD, To, name};
use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let common = ["gpu/grid.wgsl", "gpu/sum_256.wgsl"];
    let mut sources =
        vec![Source::new("rms_norm_any", "", &[common[0], common[1], "rms_norm/rms_norm_any.wgsl"])];
    for from in [From::Given, From::Combined] {
        let rows = match from {
            From::Given => "rms_norm/rows_given.wgsl",
            From::Combined => "rms_norm/rows_combined.wgsl",
        };
        for to in [To::F32, To::Int8, To::Int8x2, To::Both] {
            let mut parts = vec![common[0], common[1], "rms_norm/row.wgsl", "rms_norm/weights.wgsl", rows];
            let keep = match to {
                To::Both => "rms_norm/keep_f32.wgsl",
                _ => "rms_norm/keep_nothing.wgsl",
            };
            match to {
                To::F32 => parts.push("rms_norm/rms_norm_f32.wgsl"),
                _ => parts.extend([
                    "gpu/int8.wgsl",
                    "gpu/int8_groups.wgsl",
                    keep,
                    "rms_norm/squares_256.wgsl",
                    "rms_norm/int8_row.wgsl",
                    "rms_norm/rms_norm_int8.wgsl",
                ]),
            }
            let terms = if to == To::Int8x2 { 2 } else { 1 };
            // x, the norm's weight, what is written, and then what is added to x.
            let first = match to {
                To::F32 => 3,
                To::Int8 | To::Int8x2 => 5,
                To::Both => 6,
            };
            for held in HELD {
                let prelude = format!(
                    "const HELD: u32 = {held}u; const TERMS: u32 = {terms}u; const X: u32 = 0u; const WEIGHT: u32 = 1u; \
                     const FIRST: u32 = {first}u;"
                );
                sources.push(Source::new(name(from, to, held), prelude, &parts));
            }
        }
    }
    sources
}
