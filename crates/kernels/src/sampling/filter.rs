//! The most probable tokens, without sorting all of them.

use std::cmp::Ordering;

use super::scan::BLOCK;

/// A token that may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) id: u32,
    pub(super) weight: f32,
}

/// By logit from the largest down, equals by id: the order of every filter.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Sorts into the order of every filter.
pub(super) fn sort(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(order);
}

/// Collects all tokens with a logit of at least `bound` and above −∞; `maxima` are the largest logits of the blocks.
pub(super) fn collect(logits: &[f32], maxima: &[f32], bound: f32, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    for (block, (logits, &max)) in logits.chunks(BLOCK).zip(maxima).enumerate() {
        if max < bound || max == f32::NEG_INFINITY {
            continue;
        }
        for (i, &logit) in logits.iter().enumerate() {
            if logit >= bound && logit > f32::NEG_INFINITY {
                candidates.push(Candidate { logit, id: (block * BLOCK + i) as u32, weight: 0.0 });
            }
        }
    }
}

/// Collects the `k` largest logits, in no particular order; fewer where there are fewer above −∞.
///
/// The k-th largest of the blocks' maxima is a bound that at least `k` tokens reach, and not many more.
pub(super) fn top(
    logits: &[f32],
    maxima: &[f32],
    k: usize,
    scratch: &mut Vec<f32>,
    candidates: &mut Vec<Candidate>,
) {
    let mut bound = f32::NEG_INFINITY;
    if (1..=maxima.len()).contains(&k) {
        scratch.clear();
        scratch.extend_from_slice(maxima);
        bound = *scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    }
    collect(logits, maxima, bound, candidates);
    if k == 0 {
        candidates.clear();
    } else if candidates.len() > k {
        candidates.select_nth_unstable_by(k - 1, order);
        candidates.truncate(k);
    }
}

/// The length of the shortest prefix whose weights reach `mass`, where the candidates are sorted; nothing when all of
/// them do not reach it.
pub(super) fn reaches(candidates: &[Candidate], mass: f64) -> Option<usize> {
    let mut sum = 0.0;
    let last = candidates.iter().position(|candidate| {
        sum += f64::from(candidate.weight);
        sum >= mass
    });
    last.map(|last| last + 1)
}

/// Moves the most probable candidates whose weights reach `mass` to the front and gives their number: halves the range
/// that the last of them lies in until it is small, so the work is linear, and nothing is sorted but that.
pub(super) fn partition(candidates: &mut [Candidate], mass: f64) -> usize {
    let (mut kept, mut left) = (0, mass);
    let mut range = candidates;
    while range.len() > 64 {
        let half = range.len() / 2;
        range.select_nth_unstable_by(half - 1, order);
        let sum: f64 = range[..half].iter().map(|candidate| f64::from(candidate.weight)).sum();
        if sum >= left {
            range = &mut range[..half];
        } else {
            (kept, left) = (kept + half, left - sum);
            range = &mut range[half..];
        }
    }
    sort(range);
    kept + reaches(range, left).unwrap_or(range.len())
}
