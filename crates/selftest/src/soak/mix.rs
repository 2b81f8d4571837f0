//! The requests of a soak: a few different ones, asked for again and again, so that every answer is known beforehand.

use bessemer_engine::{FinishReason, Request, Sampling};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Soak;

/// Requests, and how their owners behave. The same seed gives the same ones.
#[derive(Debug)]
pub(super) struct Mix {
    seed: u64,
    requests: Vec<Request>,
}

/// What the owner of a request does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Listens to the end.
    Patient,
    /// Cancels after so many tokens, and listens to the end.
    Cancels(usize),
    /// Goes away after so many tokens.
    Leaves(usize),
}

/// What a request gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) tokens: Vec<u32>,
    pub(super) reason: FinishReason,
}

impl Mix {
    /// For a model of `vocab` tokens and a context of `context`.
    pub(super) fn new(soak: &Soak, vocab: usize, context: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(soak.seed);
        let generate = soak.max_tokens.clamp(1, context.saturating_sub(1).max(1));
        let longest = soak.max_prompt.min(context.saturating_sub(generate)).max(1);
        let requests = (0..soak.distinct.max(1)).map(|_| request(&mut rng, vocab, longest, generate));
        Self { seed: soak.seed, requests: requests.collect() }
    }

    /// All requests.
    pub(super) fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Which request has this number in the run, and what its owner does.
    pub(super) fn asked(&self, number: u64) -> (usize, Manner) {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let which = rng.random_range(0..self.requests.len());
        let tokens = self.requests.get(which).and_then(|request| request.max_tokens).unwrap_or(1);
        let manner = match rng.random_range(0..16) {
            0 => Manner::Cancels(rng.random_range(0..tokens)),
            1 => Manner::Leaves(rng.random_range(0..tokens)),
            _ => Manner::Patient,
        };
        (which, manner)
    }
}

/// Greedy, drawn, and drawn with penalties on its own history, each a third; one prompt in four may be long.
fn request(rng: &mut SmallRng, vocab: usize, longest: usize, generate: usize) -> Request {
    let most = if rng.random_range(0..4) == 0 { longest } else { longest.div_ceil(4) };
    let length = rng.random_range(1..=most);
    let prompt = (0..length).map(|_| rng.random_range(0..vocab.max(1)) as u32).collect();
    let seed = Some(rng.random());
    let sampling = match rng.random_range(0..3) {
        0 => Sampling::greedy(),
        1 => Sampling { temperature: 0.8, top_p: 0.95, seed, ..Sampling::default() },
        _ => Sampling {
            temperature: 0.9,
            top_k: 40,
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            presence_penalty: 0.1,
            top_logprobs: 3,
            seed,
            ..Sampling::default()
        },
    };
    let max_tokens = Some(rng.random_range(1..=generate));
    Request { prompt, sampling, max_tokens, ignore_end: rng.random(), ..Request::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_requests_that_fit_and_differ() {
        let soak = Soak { distinct: 40, max_prompt: 500, max_tokens: 30, seed: 5, ..Soak::default() };
        let (one, other) = (Mix::new(&soak, 100, 64), Mix::new(&soak, 100, 64));
        for (request, same) in one.requests().iter().zip(other.requests()) {
            assert_eq!((&request.prompt, &request.sampling), (&same.prompt, &same.sampling));
            assert!(request.prompt.len() + request.max_tokens.unwrap() <= 64);
            assert!(!request.prompt.is_empty() && request.prompt.iter().all(|token| *token < 100));
        }
        let asked: Vec<_> = (0..500).map(|number| one.asked(number)).collect();
        assert_eq!(asked, (0..500).map(|number| other.asked(number)).collect::<Vec<_>>());
        let counts = |manner: fn(&Manner) -> bool| asked.iter().filter(|(_, m)| manner(m)).count();
        let cancelled = counts(|manner| matches!(manner, Manner::Cancels(_)));
        let left = counts(|manner| matches!(manner, Manner::Leaves(_)));
        assert!((10..60).contains(&cancelled) && (10..60).contains(&left), "{cancelled} {left}");
        assert!((0..40).all(|which| asked.iter().any(|(asked, _)| *asked == which)));
    }
}
