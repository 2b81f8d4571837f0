//! A prompt that is repeated in front of its completion, with its log-probabilities where asked for.
//!
//! They come from the same network and KV path as every other token, in one pass. The first token has none: nothing
//! comes before it.

use bessemer_text::Specials;
use serde_json::Map;

use crate::app::App;
use crate::openai::completion_request::PromptInput;
use crate::openai::error::ApiError;
use crate::openai::logprobs::{CompletionLogprobs, float, spelled};

/// Logits held at once at most: a gibibyte of f32.
const MAX_LOGITS: usize = 1 << 28;

/// What a choice begins with.
#[derive(Debug)]
pub struct Echo {
    /// The prompt's text.
    pub text: String,
    /// Where asked for.
    pub logprobs: Option<CompletionLogprobs>,
}

impl Echo {
    /// Repeats `input`, which is `tokens` in the model's vocabulary, with `top` alternatives for each token.
    pub fn new(app: &App, input: &PromptInput, tokens: &[u32], top: Option<u32>) -> Result<Self, ApiError> {
        let text = match input {
            PromptInput::Text(text) => text.clone(),
            PromptInput::Tokens(ids) => {
                crate::prompt::tokenizer(&app.engine, "echo")?.decode(ids, Specials::Keep)
            }
        };
        let logprobs = top.map(|top| logprobs(app, tokens, top as usize)).transpose()?;
        Ok(Self { text, logprobs })
    }
}

fn logprobs(app: &App, tokens: &[u32], top: usize) -> Result<CompletionLogprobs, ApiError> {
    let vocab = app.engine.info().vocab;
    if tokens.len().saturating_mul(vocab) > MAX_LOGITS {
        let message = format!(
            "logprobs: together with `echo`, a prompt must have at most {} tokens with this model, but it has {}. \
             Send it in parts",
            MAX_LOGITS / vocab.max(1),
            tokens.len()
        );
        return Err(ApiError::invalid("logprobs", message));
    }
    let logits = app.engine.logits(tokens)?;
    let tokenizer = app.engine.tokenizer();
    let mut logprobs = CompletionLogprobs::default();
    let before = std::iter::once(None).chain(logits.chunks_exact(vocab.max(1)).map(Some));
    for (&id, logits) in tokens.iter().zip(before) {
        let Some(logits) = logits else {
            logprobs.push(tokenizer, id, None, None);
            continue;
        };
        let sum = log_sum_exp(logits);
        let of = |id: u32| logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| logit - sum);
        let best = best(logits, top).into_iter().chain([id]);
        let map: Map<_, _> = best.map(|id| (spelled(tokenizer, id).0, float(of(id)))).collect();
        logprobs.push(tokenizer, id, Some(of(id)), Some(map));
    }
    Ok(logprobs)
}

/// ln Σ exp, kept from overflow by the maximum.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    max + sum.ln() as f32
}

/// Ids of the `count` largest logits, largest first.
fn best(logits: &[f32], count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let mut ids: Vec<(u32, f32)> = (0_u32..).zip(logits.iter().copied()).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids.into_iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_does_not_overflow() {
        assert!((log_sum_exp(&[0.0, 0.0]) - 2.0_f32.ln()).abs() < 1e-6);
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2.0_f32.ln())).abs() < 1e-3);
    }

    #[test]
    fn best_first() {
        assert_eq!(best(&[0.1, 3.0, -1.0, 3.0, 2.0], 3), [1, 3, 4]);
        assert_eq!(best(&[0.1, 3.0], 5), [1, 0]);
        assert_eq!(best(&[0.1], 0), [0_u32; 0]);
    }
}
