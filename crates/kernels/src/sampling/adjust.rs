//! What changes logits before their probabilities are taken: penalties, bias, mask.

use super::{Lists, NO_MASK, RowParams};

/// Marks a token of the history; the bits below count its occurrences in the output.
const SEEN: u32 = 1 << 31;

impl RowParams {
    /// Whether the history matters.
    fn penalises(&self) -> bool {
        self.history_len > 0
            && (self.repetition_penalty != 1.0
                || self.presence_penalty != 0.0
                || self.frequency_penalty != 0.0)
    }

    /// Whether [`adjust`] changes anything.
    pub(super) fn adjusts(&self) -> bool {
        self.penalises() || self.bias_len > 0 || self.mask_start != NO_MASK
    }
}

/// Applies penalties, bias and mask to `logits`. `counts` is zeros, and as long as `logits`; it is left so.
pub(super) fn adjust(logits: &mut [f32], params: &RowParams, lists: Lists<'_>, counts: &mut [u32]) {
    if params.penalises() {
        let history = range(lists.history, params.history_start, params.history_len);
        for (i, &token) in history.iter().enumerate() {
            if let Some(count) = counts.get_mut(token as usize) {
                *count = (*count | SEEN) + u32::from(i >= params.prompt_len as usize);
            }
        }
        for &token in history {
            let (Some(logit), Some(count)) = (logits.get_mut(token as usize), counts.get_mut(token as usize))
            else {
                continue;
            };
            // Zero at a token's second occurrence: it has had its penalty.
            let count = std::mem::take(count);
            if count & SEEN != 0 {
                let penalty = params.repetition_penalty;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
            let times = count & !SEEN;
            if times > 0 {
                *logit -= params.frequency_penalty * times as f32;
                *logit -= params.presence_penalty;
            }
        }
    }
    let ids = range(lists.bias_ids, params.bias_start, params.bias_len);
    for (&id, bias) in ids.iter().zip(range(lists.bias_values, params.bias_start, params.bias_len)) {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
    if params.mask_start != NO_MASK {
        let mask = range(lists.masks, params.mask_start, lists.mask_words as u32);
        for (i, tokens) in logits.chunks_mut(32).enumerate() {
            match mask.get(i).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => tokens.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in tokens.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

/// `len` elements from `start`, as far as the list goes.
fn range<T>(list: &[T], start: u32, len: u32) -> &[T] {
    let start = list.len().min(start as usize);
    &list[start..list.len().min(start.saturating_add(len as usize))]
}
