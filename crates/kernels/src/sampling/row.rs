//! One row, from logits to token.

use std::cell::RefCell;

use super::adjust::adjust;
use super::filter::{self, Candidate};
use super::random::uniform;
use super::{MAX_LOGPROBS, NO_LOGPROBS, RowParams, SampleOut, scan};
use crate::Isa;

/// The lists that [`RowParams`] points into; see [`super::Sample`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Lists<'a> {
    /// Token ids.
    pub history: &'a [u32],
    /// Token ids.
    pub bias_ids: &'a [u32],
    /// What is added to their logits.
    pub bias_values: &'a [f32],
    /// One bit a token.
    pub masks: &'a [u32],
    /// Words of a mask.
    pub mask_words: usize,
}

/// A worker's memory; grows to the largest vocabulary, then stays.
#[derive(Debug, Default)]
struct Scratch {
    logits: Vec<f32>,
    counts: Vec<u32>,
    maxima: Vec<f32>,
    order: Vec<f32>,
    weights: Vec<f32>,
    sums: Vec<f32>,
    candidates: Vec<Candidate>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The tokens that may be sampled.
enum Support {
    /// This one.
    One(u32),
    /// All, by `weights`, whose blocks sum to `sums` and in all to this.
    All(f64),
    /// `candidates`.
    Some,
}

/// Samples one row. `top_ids` and `top_logprobs` have room for [`MAX_LOGPROBS`].
pub(super) fn sample(
    isa: Isa,
    logits: &[f32],
    params: &RowParams,
    lists: Lists<'_>,
    top_ids: &mut [u32],
    top_logprobs: &mut [f32],
) -> SampleOut {
    SCRATCH.with_borrow_mut(|scratch| {
        let token = match support(isa, logits, params, lists, scratch) {
            Support::One(token) => token,
            Support::All(total) => {
                draw_block(&scratch.weights, &scratch.sums, total * uniform(params.seed, params.step))
            }
            Support::Some => {
                scratch.candidates.sort_unstable_by_key(|candidate| candidate.id);
                draw(&scratch.candidates, uniform(params.seed, params.step))
            }
        };
        top_ids.fill(u32::MAX);
        top_logprobs.fill(f32::NEG_INFINITY);
        let mut logprob = 0.0;
        if params.logprobs != NO_LOGPROBS {
            let Scratch { maxima, order, weights, sums, candidates, .. } = scratch;
            let max = scan::maxima(isa, logits, maxima);
            let total = scan::weigh(isa, logits, (max, 1.0), weights, sums);
            let of = |logit: f32| {
                let logprob = f64::from(logit) - f64::from(max) - total.ln();
                if logprob.is_nan() { f32::NEG_INFINITY } else { logprob as f32 }
            };
            logprob = logits.get(token as usize).map_or(f32::NEG_INFINITY, |&logit| of(logit));
            filter::top(logits, maxima, (params.logprobs as usize).min(MAX_LOGPROBS), order, candidates);
            filter::sort(candidates);
            for (candidate, (id, logprob)) in candidates.iter().zip(top_ids.iter_mut().zip(top_logprobs)) {
                (*id, *logprob) = (candidate.id, of(candidate.logit));
            }
        }
        SampleOut { token, logprob }
    })
}

/// The probability that each token is sampled with: what [`super::Sample`] follows.
pub fn distribution(logits: &[f32], params: &RowParams, lists: Lists<'_>) -> Vec<f64> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut probabilities = vec![0.0; logits.len()];
        match support(Isa::detect(), logits, params, lists, scratch) {
            Support::One(token) => {
                if let Some(probability) = probabilities.get_mut(token as usize) {
                    *probability = 1.0;
                }
            }
            Support::All(total) => {
                for (probability, &weight) in probabilities.iter_mut().zip(&scratch.weights) {
                    *probability = f64::from(weight) / total;
                }
            }
            Support::Some => {
                let total: f64 = scratch.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
                for candidate in &scratch.candidates {
                    probabilities[candidate.id as usize] = f64::from(candidate.weight) / total;
                }
            }
        }
        probabilities
    })
}

/// Carries out all steps but the draw.
fn support(isa: Isa, logits: &[f32], params: &RowParams, lists: Lists<'_>, scratch: &mut Scratch) -> Support {
    /// Candidates that nearly always hold `top_p` of the probability.
    const FEW: usize = 1024;
    let Scratch { logits: adjusted, counts, maxima, order, weights, sums, candidates } = scratch;
    let logits = if params.adjusts() {
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        if counts.len() < logits.len() {
            counts.resize(logits.len(), 0);
        }
        adjust(adjusted, params, lists, &mut counts[..logits.len()]);
        adjusted
    } else {
        logits
    };
    let max = scan::maxima(isa, logits, maxima);
    let positive = params.temperature > 0.0; // False for NaN as well.
    if !positive || max == f32::NEG_INFINITY {
        return Support::One(scan::first(logits, maxima, max));
    }
    // Finite, so that the largest logit's distance from itself stays 0.
    let factor = (1.0 / params.temperature).min(1e30);
    let (top_k, top_p, min_p) = (params.top_k as usize, f64::from(params.top_p), params.min_p.min(1.0));
    let (by_count, by_mass, by_share) = (top_k > 0 && top_k < logits.len(), top_p < 1.0, min_p > 0.0);
    if by_count {
        filter::top(logits, maxima, top_k, order, candidates);
        filter::sort(candidates);
        let total = weigh(isa, candidates, (max, factor), [order, weights, sums]);
        if by_mass {
            let kept = filter::reaches(candidates, top_p * total);
            candidates.truncate(kept.unwrap_or(candidates.len()));
        }
    } else if by_mass {
        let mass = top_p * scan::weigh(isa, logits, (max, factor), weights, sums);
        filter::top(logits, maxima, FEW, order, candidates);
        filter::sort(candidates);
        weigh(isa, candidates, (max, factor), [order, weights, sums]);
        let kept = filter::reaches(candidates, mass).unwrap_or_else(|| {
            filter::collect(logits, maxima, f32::NEG_INFINITY, candidates);
            weigh(isa, candidates, (max, factor), [order, weights, sums]);
            filter::partition(candidates, mass)
        });
        candidates.truncate(kept);
    } else if by_share {
        // A little below the bound: weights, which are rounded, decide.
        filter::collect(logits, maxima, max + (min_p.ln() - 1e-3) / factor, candidates);
        weigh(isa, candidates, (max, factor), [order, weights, sums]);
    } else {
        return Support::All(scan::weigh(isa, logits, (max, factor), weights, sums));
    }
    if by_share {
        // The most probable token weighs 1.
        candidates.retain(|candidate| candidate.weight >= min_p);
    }
    Support::Some
}

/// Weighs candidates as [`scan::weigh`] weighs all tokens, and gives the sum.
fn weigh(isa: Isa, candidates: &mut [Candidate], scale: (f32, f32), scratch: [&mut Vec<f32>; 3]) -> f64 {
    let [logits, weights, sums] = scratch;
    logits.clear();
    logits.extend(candidates.iter().map(|candidate| candidate.logit));
    let total = scan::weigh(isa, logits, scale, weights, sums);
    for (candidate, &weight) in candidates.iter_mut().zip(weights.iter()) {
        candidate.weight = weight;
    }
    total
}

/// Draws a candidate; `random` is from 0 to 1.
fn draw(candidates: &[Candidate], random: f64) -> u32 {
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let mut left = random * total;
    let mut token = 0;
    for candidate in candidates.iter().filter(|candidate| candidate.weight > 0.0) {
        token = candidate.id;
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            break;
        }
    }
    token
}

/// Draws a token by its weight: first its block, by the block's sum, then the token. Where rounding leaves `left` beyond
/// the end of either, it is the last that has any weight.
fn draw_block(weights: &[f32], sums: &[f32], mut left: f64) -> u32 {
    let mut chosen = 0;
    for (block, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        chosen = block;
        if left < f64::from(sum) {
            break;
        }
        left -= f64::from(sum);
    }
    let mut token = 0;
    let tokens = weights.iter().enumerate().skip(chosen * scan::BLOCK).take(scan::BLOCK);
    for (id, &weight) in tokens.filter(|(_, weight)| **weight > 0.0) {
        token = id as u32;
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    token
}
