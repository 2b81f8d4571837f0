//! One measured run: a batch of requests sent at once, and the time of every token.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bessemer_engine::{Engine, Reply, ReplyStream, Request, Sampling};
use futures::StreamExt;
use futures::future::try_join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What is asked of the engine at once.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens of it that are the same whatever the seed.
    pub shared: usize,
    /// Tokens that each request generates.
    pub generate: usize,
    /// Requests.
    pub batch: usize,
}

/// When the tokens came.
#[derive(Clone, Debug)]
pub struct Run {
    start: Instant,
    prompt: usize,
    /// Per request: the time of each of its tokens; at least one.
    tokens: Vec<Vec<Instant>>,
}

impl Workload {
    /// Sends the requests and notes when their tokens come.
    pub fn run(&self, engine: &Engine, seed: u64) -> anyhow::Result<Run> {
        let vocab = u32::try_from(engine.info().vocab)?;
        let (mut common, mut own) = (SmallRng::seed_from_u64(u64::MAX), SmallRng::seed_from_u64(seed));
        let shared: Vec<u32> =
            (0..self.shared.min(self.prompt)).map(|_| common.random_range(0..vocab)).collect();
        let prompts: Vec<Vec<u32>> = (0..self.batch)
            .map(|_| {
                let rest = (shared.len()..self.prompt).map(|_| own.random_range(0..vocab));
                shared.iter().copied().chain(rest).collect()
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().context("no runtime")?;
        let start = Instant::now();
        let streams = prompts
            .into_iter()
            .map(|prompt| {
                engine.submit(Request {
                    prompt,
                    sampling: Sampling::greedy(),
                    max_tokens: Some(self.generate),
                    ignore_end: true,
                    ..Request::default()
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let tokens = runtime.block_on(try_join_all(streams.into_iter().map(|stream| self.times(stream))))?;
        Ok(Run { start, prompt: self.prompt, tokens })
    }

    async fn times(&self, mut stream: ReplyStream) -> anyhow::Result<Vec<Instant>> {
        let mut times = Vec::with_capacity(self.generate);
        while let Some(reply) = stream.next().await {
            match reply {
                Reply::Token(_) => times.push(Instant::now()),
                Reply::Finished { .. } if times.len() == self.generate => return Ok(times),
                Reply::Finished { .. } => bail!("{} tokens came instead of {}", times.len(), self.generate),
                Reply::Failed(error) => return Err(error.into()),
            }
        }
        bail!("the engine ended without an answer. This is a bug: please report it")
    }
}

impl Run {
    /// Each request's time to its first token.
    pub fn times_to_first(&self) -> impl Iterator<Item = Duration> {
        self.tokens.iter().filter_map(|times| times.first()).map(|time| *time - self.start)
    }

    /// Prompt tokens of all requests by the time until the last of them has its first token.
    pub fn prefill_rate(&self) -> f64 {
        let slowest = self.times_to_first().max().unwrap_or_default();
        (self.prompt * self.tokens.len()) as f64 / slowest.as_secs_f64()
    }

    /// Tokens by time while all requests generate: from when the last one has its first token until the first one has
    /// its last.
    ///
    /// # Errors
    /// When the first request was done before the last one began, so that the batch never ran at once.
    pub fn decode_rate(&self) -> anyhow::Result<f64> {
        let begin = self.tokens.iter().filter_map(|times| times.first()).max().context("no request")?;
        let end = self.tokens.iter().filter_map(|times| times.last()).min().context("no request")?;
        if end <= begin {
            bail!(
                "--batch: all sequences must generate at once, but the first one ended before the last one began. Raise \
                 --gen-tokens, --max-sequences or --kv-memory, or take a smaller batch"
            );
        }
        let within = self.tokens.iter().flatten().filter(|time| *time > begin && *time <= end).count();
        Ok(within as f64 / (*end - *begin).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(prompt: usize, tokens: &[&[u64]]) -> Run {
        let start = Instant::now();
        let at = |millis: &u64| start + Duration::from_millis(*millis);
        Run { start, prompt, tokens: tokens.iter().map(|times| times.iter().map(at).collect()).collect() }
    }

    #[test]
    fn one_sequence() {
        let run = run(100, &[&[50, 60, 70, 80]]);
        assert!((run.prefill_rate() - 2000.0).abs() < 1e-6);
        assert!((run.decode_rate().unwrap() - 100.0).abs() < 1e-6);
    }

    #[test]
    fn only_the_time_of_all_sequences_counts() {
        // From 100 to 200 ms: tokens at 200 of the first, at 150 and 200 of the second.
        let run = run(10, &[&[50, 100, 200], &[100, 150, 200, 400]]);
        assert!((run.prefill_rate() - 200.0).abs() < 1e-6);
        assert!((run.decode_rate().unwrap() - 30.0).abs() < 1e-6);
    }

    #[test]
    fn a_batch_that_never_ran_at_once_is_refused() {
        assert!(run(10, &[&[10, 20], &[30, 40]]).decode_rate().is_err());
    }
}
