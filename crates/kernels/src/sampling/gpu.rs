//! Sampling on a GPU: two launches, whatever the rows ask for, since a recorded step does not know.
//!
//! - `summarise` has a workgroup for each slice of 2048 tokens of each row; `choose` has one for each row. A greedy row
//!   costs one read of its logits and a merge of its slices.
//! - Weights are *summed as integers* (64-bit fixed point), so sums do not depend on how they are split. They agree with
//!   the CPU form's to about 1e-8 of the total: a draw so close to the border of two tokens may fall to the other.
//! - A driver may work on a *subgroup* that has not come together again, so subgroup operations stand behind barriers.
//! - The known gap: `choose` is one workgroup, so a row whose `top_k` or `top_p` keeps more than about a thousand tokens
//!   pays several passes over its logits by that one: 0.25 to 0.55 ms for 152 000 tokens on an H200, where others take
//!   0.01 to 0.07.

use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice};
use bytemuck::{Pod, Zeroable};

use super::Sample;
use crate::shaders::launch;
use crate::{Catalog, bounds};

/// Tokens of a slice.
const SLICE: usize = 2048;

/// Words of the summary for each slice of a row.
const SUMMARY_WORDS: usize = 40;

/// Tokens at most: so many weights of 1 still add up.
const MOST_TOKENS: usize = 1 << 19;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Summarise {
    vocab: u32,
    slices: u32,
    mask_words: u32,
    history: u32,
    bias: u32,
    masks: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Choose {
    vocab: u32,
    slices: u32,
}

/// Where the parts of the scratch memory end: the summaries, then the adjusted logits.
fn layout(sample: &Sample) -> (usize, usize) {
    let slices = sample.vocab.div_ceil(SLICE);
    let summary = (4 * SUMMARY_WORDS * slices * sample.rows).next_multiple_of(256);
    (summary, summary + 4 * sample.rows * sample.vocab)
}

pub(super) fn scratch(sample: &Sample) -> usize {
    layout(sample).1
}

/// Whether a workgroup of 512 fits with all the registers that `choose` takes. It has the row to itself, so the more
/// threads, the more loads are on their way; where units are small, the GPU would refuse it.
fn wide(limits: &GpuLimits) -> bool {
    limits.workgroup_threads >= 512 && limits.workgroup_memory > 32 << 10
}

pub(super) fn launches(
    sample: &Sample,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: &Slice,
) -> Result<Vec<Dispatch>> {
    let Sample { rows, vocab, .. } = *sample;
    bounds::indices("sample", &[rows, vocab])?;
    let most_rows = limits.max_groups[0].min(limits.max_groups[1]) as usize;
    bounds::rule("sample", rows <= most_rows && vocab <= MOST_TOKENS, || {
        format!("takes up to {most_rows} rows of {MOST_TOKENS} tokens on this GPU, not {rows} of {vocab}")
    })?;
    let (summary_end, end) = layout(sample);
    let summary = scratch.slice(0, summary_end as u64)?;
    let adjusted = scratch.slice(summary_end as u64, (end - summary_end) as u64)?;
    let slices = vocab.div_ceil(SLICE);

    // An empty list cannot be bound: the settings, which nobody takes for entries of it, stand in.
    let list = |list: &Slice| Binding::read(if list.size() < 4 { &sample.params } else { list }.clone());
    let entries = |list: &Slice| u32::try_from(list.size() / 4).unwrap_or(u32::MAX);
    let summarise = Summarise {
        vocab: vocab as u32,
        slices: slices as u32,
        mask_words: u32::try_from(sample.mask_words).unwrap_or(u32::MAX),
        history: entries(&sample.history),
        bias: entries(&sample.bias_ids).min(entries(&sample.bias_values)),
        masks: entries(&sample.masks),
    };
    let first = vec![
        Binding::read(sample.logits.clone()),
        Binding::read(sample.params.clone()),
        list(&sample.history),
        list(&sample.bias_ids),
        list(&sample.bias_values),
        list(&sample.masks),
        Binding::write_any(adjusted.clone()),
        Binding::write_any(summary.clone()),
    ];
    let second = vec![
        Binding::read(sample.logits.clone()),
        Binding::read(sample.params.clone()),
        Binding::read(adjusted),
        Binding::read(summary),
        Binding::write_any(sample.out.clone()),
        Binding::write_any(sample.top_ids.clone()),
        Binding::write_any(sample.top_logprobs.clone()),
    ];
    let kernel = if wide(limits) { "sample_choose_512" } else { "sample_choose_256" };
    let choose = Choose { vocab: vocab as u32, slices: slices as u32 };
    Ok(vec![
        launch(catalog, "sample_summarise", first, &summarise, [slices, rows, 1])?,
        launch(catalog, kernel, second, &choose, [rows, 1, 1])?,
    ])
}
