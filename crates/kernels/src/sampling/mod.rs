//! Sampling the next token on the device, so that it can feed the next step without a visit to the host.
//!
//! - The steps, in this order: repetition penalty, frequency and presence penalties, logit bias, mask, temperature,
//!   `top_k`, `top_p`, `min_p`; each works on what the one before left ([`RowParams`] defines them).
//! - `top_k`, `top_p` and `min_p` all keep a *prefix* of the tokens in order of probability. So they never sort the
//!   vocabulary: the largest logit of each block of tokens gives a bound that only a few candidates pass.
//! - A draw goes through the kept tokens *by id*, so that which token a random number means depends on nothing that a
//!   device may do in its own order.
//! - Random numbers are a *function* of the request's seed and of the step (Philox): a request samples the same tokens in
//!   every batch, and after preemption.
//! - Logprobs are those of the model itself: the log-softmax of the raw logits, before any of the steps.
//! - A logit that is not a number counts as −∞; where all are −∞ the token is 0.

mod adjust;
mod filter;
mod gpu;
mod random;
mod row;
mod scan;
#[cfg(test)]
mod tests;

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, DeviceError, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

pub use random::uniform;
pub use row::{Lists, distribution};

use crate::{Catalog, Isa, Kernel, Op, bounds};

/// Most alternatives that logprobs are given for.
pub const MAX_LOGPROBS: usize = 20;

/// [`RowParams::logprobs`] of a row whose logprob is not wanted.
pub const NO_LOGPROBS: u32 = u32::MAX;

/// [`RowParams::mask_start`] of a row that may become any token.
pub const NO_MASK: u32 = u32::MAX;

/// How one row is sampled. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct RowParams {
    /// The request's seed.
    pub seed: u64,
    /// Position of the sample in its sequence; the same seed and step give the same random number.
    pub step: u32,
    /// Logits are divided by it; 0 or less: the most probable token, of equals the lowest id.
    pub temperature: f32,
    /// Keeps the so many most probable tokens; 0: all. Of equals, lower ids first.
    pub top_k: u32,
    /// Keeps the smallest set of most probable tokens whose sum reaches it, at least one; 1 or more: all.
    pub top_p: f32,
    /// Removes tokens less probable than so many times the most probable; 0 or less: none.
    pub min_p: f32,
    /// Positive logits of tokens in the history, prompt and output, are divided by it, negative ones multiplied, once
    /// for each token; 1: unchanged.
    pub repetition_penalty: f32,
    /// Taken off the logit of each token of the output, once.
    pub presence_penalty: f32,
    /// Taken off the logit of each token of the output, each time it occurs.
    pub frequency_penalty: f32,
    /// First token of the row's history in [`Sample::history`].
    pub history_start: u32,
    /// Tokens of the history.
    pub history_len: u32,
    /// How many of them, from the first, are the prompt; the rest is the output.
    pub prompt_len: u32,
    /// First entry of the row in [`Sample::bias_ids`] and [`Sample::bias_values`].
    pub bias_start: u32,
    /// Entries.
    pub bias_len: u32,
    /// First word of the row's mask in [`Sample::masks`], or [`NO_MASK`].
    pub mask_start: u32,
    /// Alternatives to give with their logprobs, at most [`MAX_LOGPROBS`]; or [`NO_LOGPROBS`].
    pub logprobs: u32,
    /// Fills the struct to a multiple of 8 bytes.
    pub padding: u32,
}

impl Default for RowParams {
    fn default() -> Self {
        Self {
            seed: 0,
            step: 0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            history_start: 0,
            history_len: 0,
            prompt_len: 0,
            bias_start: 0,
            bias_len: 0,
            mask_start: NO_MASK,
            logprobs: NO_LOGPROBS,
            padding: 0,
        }
    }
}

/// What a row became.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct SampleOut {
    /// The token.
    pub token: u32,
    /// Its log-probability by the raw logits; 0 where it was not asked for.
    pub logprob: f32,
}

/// Samples one token for each row of logits.
///
/// Ranges of `history`, `bias_*` and `masks` that leave their slices are cut off; ids that are no token are ignored.
#[derive(Clone, Debug)]
pub struct Sample {
    /// f32 `[rows, vocab]`.
    pub logits: Slice,
    /// [`RowParams`] `[rows]`.
    pub params: Slice,
    /// u32: token ids, each row's in one piece.
    pub history: Slice,
    /// u32: token ids.
    pub bias_ids: Slice,
    /// f32: what is added to their logits.
    pub bias_values: Slice,
    /// u32: bit `t % 32` of word `t / 32` of a mask says whether token `t` is allowed.
    pub masks: Slice,
    /// Words of a mask; tokens beyond it are not allowed. So tokens of the model that the tokenizer does not know
    /// are never sampled under a mask.
    pub mask_words: usize,
    /// [`SampleOut`] `[rows]`.
    pub out: Slice,
    /// u32 `[rows, MAX_LOGPROBS]`: the most probable tokens by the raw logits, best first. Entries beyond
    /// [`RowParams::logprobs`] are `u32::MAX`, with logprob −∞.
    pub top_ids: Slice,
    /// f32 `[rows, MAX_LOGPROBS]`: their logprobs.
    pub top_logprobs: Slice,
    /// Rows.
    pub rows: usize,
    /// Tokens.
    pub vocab: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    vocab: u32,
    mask_words: u32,
}

static KERNEL: Kernel = Kernel { name: "sample", cpu: kernel };

impl Sample {
    fn check(&self) -> Result<()> {
        let Self { rows, vocab, .. } = *self;
        bounds::holds::<f32>("sample", "logits", &self.logits, &[rows, vocab])?;
        bounds::holds::<RowParams>("sample", "params", &self.params, &[rows])?;
        bounds::holds::<SampleOut>("sample", "out", &self.out, &[rows])?;
        bounds::holds::<u32>("sample", "top_ids", &self.top_ids, &[rows, MAX_LOGPROBS])?;
        bounds::holds::<f32>("sample", "top_logprobs", &self.top_logprobs, &[rows, MAX_LOGPROBS])?;
        bounds::rule("sample", vocab > 0, || "vocab must not be 0".into())
    }
}

impl Op for Sample {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, vocab, .. } = *self;
        self.check()?;
        let top = Tiling::by_rows(rows, MAX_LOGPROBS, 1);
        let params = Params { vocab: vocab as u32, mask_words: self.mask_words as u32 };
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings: vec![
                Binding::read(self.logits.clone()),
                Binding::read(self.params.clone()),
                Binding::read(self.history.clone()),
                Binding::read(self.bias_ids.clone()),
                Binding::read(self.bias_values.clone()),
                Binding::read(self.masks.clone()),
                Binding::write(self.out.clone(), Tiling::by_rows(rows, 1, 1)),
                Binding::write(self.top_ids.clone(), top),
                Binding::write(self.top_logprobs.clone(), top),
            ],
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: line(rows),
        })
    }

    /// Two launches, whatever the rows ask for.
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        let scratch = scratch.ok_or_else(|| DeviceError::Usage("sample: needs its scratch memory".into()))?;
        gpu::launches(self, catalog, limits, scratch)
    }

    fn gpu_scratch(&self, _: &GpuLimits) -> usize {
        gpu::scratch(self)
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let Params { vocab, mask_words } = invocation.params();
    let (row, vocab) = (invocation.group(), vocab as usize);
    let logits = &invocation.input::<f32>(0)[row * vocab..][..vocab];
    let params = invocation.input::<RowParams>(1)[row];
    let lists = Lists {
        history: invocation.input(2),
        bias_ids: invocation.input(3),
        bias_values: invocation.input(4),
        masks: invocation.input(5),
        mask_words: mask_words as usize,
    };
    let mut out = invocation.output::<SampleOut>(6);
    let (mut ids, mut logprobs) = (invocation.output(7), invocation.output(8));
    out.row_mut(0)[0] =
        row::sample(Isa::detect(), logits, &params, lists, ids.row_mut(0), logprobs.row_mut(0));
}
