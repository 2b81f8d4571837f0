//! Passes over all logits.

use crate::Isa;
use crate::simd::{self, Simd, Task};

/// Tokens of a block.
pub(super) const BLOCK: usize = 128;

/// Writes the largest logit of each block (−∞ where there is none) and gives the largest of all.
pub(super) fn maxima(isa: Isa, logits: &[f32], maxima: &mut Vec<f32>) -> f32 {
    maxima.resize(logits.len().div_ceil(BLOCK), 0.0);
    simd::run(isa, Maxima { logits, maxima })
}

struct Maxima<'a> {
    logits: &'a [f32],
    maxima: &'a mut [f32],
}

impl Task for Maxima<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut largest = f32::NEG_INFINITY;
        for (block, to) in self.logits.chunks(BLOCK).zip(self.maxima) {
            let mut max = s.splat(f32::NEG_INFINITY);
            for x in block.chunks(S::LANES) {
                max = s.max(s.load(x, f32::NEG_INFINITY), max);
            }
            *to = s.reduce_max(max);
            largest = largest.max(*to);
        }
        largest
    }
}

/// Where a logit that equals `max`, which is the largest, stands first.
pub(super) fn first(logits: &[f32], maxima: &[f32], max: f32) -> u32 {
    if max == f32::NEG_INFINITY {
        return 0;
    }
    let block = maxima.iter().position(|&x| x == max).unwrap_or(0);
    let tokens = logits.chunks(BLOCK).nth(block).unwrap_or(&[]);
    (block * BLOCK + tokens.iter().position(|&x| x == max).unwrap_or(0)) as u32
}

/// `weights = e^((logits − max) · factor)`; writes the sum of each block and gives the sum of all.
///
/// `max` is the largest logit, so weights are at most 1.
pub(super) fn weigh(
    isa: Isa,
    logits: &[f32],
    (max, factor): (f32, f32),
    weights: &mut Vec<f32>,
    sums: &mut Vec<f32>,
) -> f64 {
    weights.resize(logits.len(), 0.0);
    sums.resize(logits.len().div_ceil(BLOCK), 0.0);
    simd::run(isa, Weigh { logits, max: max.clamp(f32::MIN, f32::MAX), factor, weights, sums });
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

struct Weigh<'a> {
    logits: &'a [f32],
    max: f32,
    factor: f32,
    weights: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Task for Weigh<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (max, factor) = (s.splat(self.max), s.splat(self.factor));
        let blocks = self.logits.chunks(BLOCK).zip(self.weights.chunks_mut(BLOCK));
        for ((logits, weights), to) in blocks.zip(self.sums) {
            let mut sum = s.splat(0.0);
            for (x, weight) in logits.chunks(S::LANES).zip(weights.chunks_mut(S::LANES)) {
                // NaN becomes −∞, and +∞ a number, so that its distance from the largest is one.
                let x = s.max(s.load(x, f32::NEG_INFINITY), s.splat(f32::NEG_INFINITY));
                let x = s.min(x, s.splat(f32::MAX));
                let e = s.exp(s.mul(s.sub(x, max), factor));
                s.store(weight, e);
                sum = s.add(sum, e);
            }
            *to = s.reduce_add(sum);
        }
    }
}
