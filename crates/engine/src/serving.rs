//! What requests went through, measured one by one.
//!
//! A request's [`Timeline`] is written by the engine's thread and may be read by whoever holds its stream, at any time. The
//! [`ServingMeter`] counts the same moments into histograms, when they happen: a token before it is sent, an end before it
//! is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bessemer_runtime::{Buckets, Histogram, HistogramSnapshot, Runtime};

use crate::FinishReason;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// The bounds of vLLM's histogram of the same name, in seconds.
static FIRST_TOKEN: Buckets = Buckets::new(
    &[
        MS,
        5 * MS,
        10 * MS,
        20 * MS,
        40 * MS,
        60 * MS,
        80 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        750 * MS,
        SECOND,
        2_500 * MS,
        5 * SECOND,
        7_500 * MS,
        10 * SECOND,
        20 * SECOND,
        40 * SECOND,
        80 * SECOND,
        160 * SECOND,
        640 * SECOND,
        2560 * SECOND,
    ],
    SECOND,
);

/// vLLM's, and four below its first of 10 ms, where fast models have all their tokens.
static BETWEEN_TOKENS: Buckets = Buckets::new(
    &[
        MS / 2,
        MS,
        5 * MS / 2,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        75 * MS,
        100 * MS,
        150 * MS,
        200 * MS,
        300 * MS,
        400 * MS,
        500 * MS,
        750 * MS,
        SECOND,
        2_500 * MS,
        5 * SECOND,
        7_500 * MS,
        10 * SECOND,
        20 * SECOND,
        40 * SECOND,
        80 * SECOND,
    ],
    SECOND,
);

/// vLLM's, and seven below its first of 0.3 s.
static LATENCY: Buckets = Buckets::new(
    &[
        MS,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        300 * MS,
        500 * MS,
        800 * MS,
        SECOND,
        1_500 * MS,
        2 * SECOND,
        2_500 * MS,
        5 * SECOND,
        10 * SECOND,
        15 * SECOND,
        20 * SECOND,
        30 * SECOND,
        40 * SECOND,
        50 * SECOND,
        60 * SECOND,
        120 * SECOND,
        240 * SECOND,
        480 * SECOND,
        960 * SECOND,
        1920 * SECOND,
        7680 * SECOND,
    ],
    SECOND,
);

/// Time to the first token in milliseconds.
static FIRST_TOKEN_MS: Buckets = Buckets::new(
    &[
        MS / 2,
        MS,
        5 * MS / 2,
        5 * MS,
        15 * MS / 2,
        10 * MS,
        25 * MS,
        50 * MS,
        75 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        750 * MS,
        SECOND,
        2_500 * MS,
        5 * SECOND,
        7_500 * MS,
        10 * SECOND,
        30 * SECOND,
        60 * SECOND,
    ],
    MS,
);

/// 1, 2, 5 and so on, as vLLM's, up to the largest contexts.
static TOKENS: Buckets = Buckets::new(
    &[
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
        500_000, 1_000_000,
    ],
    1,
);

/// When things happened to a request. All of it is there once the request has ended, as far as it came.
#[derive(Debug)]
pub struct Timeline {
    prompt_tokens: usize,
    received: Instant,
    scheduled: OnceLock<Instant>,
    first_token: OnceLock<Instant>,
    ended: OnceLock<Instant>,
    tokens: AtomicU64,
    /// Nanoseconds after `received`.
    last_token: AtomicU64,
    /// Whether the output was ended by its reader, who found a stop string in it.
    stopped: AtomicBool,
}

impl Timeline {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens generated so far.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Acquire)
    }

    /// When the engine was asked.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// When the first of its rows was submitted to the device; before that it waited.
    pub fn scheduled(&self) -> Option<Instant> {
        self.scheduled.get().copied()
    }

    /// When the first token was there.
    pub fn first_token(&self) -> Option<Instant> {
        self.first_token.get().copied()
    }

    /// When the newest token was there.
    pub fn last_token(&self) -> Option<Instant> {
        let nanos = self.last_token.load(Ordering::Acquire);
        self.first_token().map(|first| first.max(self.received + Duration::from_nanos(nanos)))
    }

    /// When the request ended in the engine.
    pub fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// The reader needs no more, because the output is complete.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}

/// How a request ended, as vLLM's `finished_reason` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An end token, a stop token or a stop string.
    Stop,
    /// As many tokens as were asked for, or the context's end.
    Length,
    /// Its owner left.
    Abort,
    /// It failed.
    Error,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Abort, Self::Error];

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// Histograms of an engine's requests. [`Engine::serving`](crate::Engine::serving) gives what they hold.
#[derive(Debug)]
pub(crate) struct ServingMeter {
    /// Tells whether the transfer queue works.
    runtime: Option<Arc<Runtime>>,
    queue: Histogram,
    first_token: Histogram,
    first_token_with_blit: Histogram,
    first_token_without_blit: Histogram,
    between_tokens: Histogram,
    per_token: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    whole: Histogram,
    prompt_tokens: Histogram,
    generated_tokens: Histogram,
    outcomes: [AtomicU64; 4],
}

/// What requests went through, since the engine was loaded. Times are seconds where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServingStatistics {
    /// From being received to the first row on the device, of each request that came so far.
    pub queue: HistogramSnapshot,
    /// From being received to the first token.
    pub first_token: HistogramSnapshot,
    /// Of these, in milliseconds, those whose first token came while the transfer queue was active.
    pub first_token_with_blit: HistogramSnapshot,
    /// The others.
    pub first_token_without_blit: HistogramSnapshot,
    /// From a token to the next one of the same request.
    pub between_tokens: HistogramSnapshot,
    /// The mean of that over a complete request with two tokens or more.
    pub per_token: HistogramSnapshot,
    /// Of complete requests, as are those that follow: from the first row to the first token.
    pub prefill: HistogramSnapshot,
    /// From the first token to the last.
    pub decode: HistogramSnapshot,
    /// From the first row to the last token.
    pub inference: HistogramSnapshot,
    /// From being received to the end.
    pub whole: HistogramSnapshot,
    /// Tokens of the prompts.
    pub prompt_tokens: HistogramSnapshot,
    /// Tokens generated.
    pub generated_tokens: HistogramSnapshot,
    /// Requests that ended, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; 4],
}

impl ServingMeter {
    /// Without any request; `runtime` tells whether the transfer queue works.
    pub(crate) fn new(runtime: Option<Arc<Runtime>>) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            queue: Histogram::new(&LATENCY),
            first_token: Histogram::new(&FIRST_TOKEN),
            first_token_with_blit: Histogram::new(&FIRST_TOKEN_MS),
            first_token_without_blit: Histogram::new(&FIRST_TOKEN_MS),
            between_tokens: Histogram::new(&BETWEEN_TOKENS),
            per_token: Histogram::new(&BETWEEN_TOKENS),
            prefill: Histogram::new(&LATENCY),
            decode: Histogram::new(&LATENCY),
            inference: Histogram::new(&LATENCY),
            whole: Histogram::new(&LATENCY),
            prompt_tokens: Histogram::new(&TOKENS),
            generated_tokens: Histogram::new(&TOKENS),
            outcomes: Default::default(),
        })
    }

    /// A request was received just now.
    pub(crate) fn request(self: &Arc<Self>, prompt_tokens: usize) -> RequestMeter {
        let timeline = Timeline {
            prompt_tokens,
            received: Instant::now(),
            scheduled: OnceLock::new(),
            first_token: OnceLock::new(),
            ended: OnceLock::new(),
            tokens: AtomicU64::new(0),
            last_token: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        };
        RequestMeter { meter: self.clone(), timeline: Arc::new(timeline) }
    }

    /// What was measured so far.
    pub(crate) fn statistics(&self) -> ServingStatistics {
        ServingStatistics {
            queue: self.queue.snapshot(),
            first_token: self.first_token.snapshot(),
            first_token_with_blit: self.first_token_with_blit.snapshot(),
            first_token_without_blit: self.first_token_without_blit.snapshot(),
            between_tokens: self.between_tokens.snapshot(),
            per_token: self.per_token.snapshot(),
            prefill: self.prefill.snapshot(),
            decode: self.decode.snapshot(),
            inference: self.inference.snapshot(),
            whole: self.whole.snapshot(),
            prompt_tokens: self.prompt_tokens.snapshot(),
            generated_tokens: self.generated_tokens.snapshot(),
            outcomes: self.outcomes.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }

    fn blit_queue_is_active(&self) -> bool {
        self.runtime.as_ref().is_some_and(|runtime| runtime.transfer_queue().is_enabled())
    }
}

/// The hand that writes a request's timeline and counts it.
#[derive(Debug)]
pub(crate) struct RequestMeter {
    meter: Arc<ServingMeter>,
    timeline: Arc<Timeline>,
}

impl RequestMeter {
    pub(crate) fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// Rows of it were submitted; the first time counts.
    pub(crate) fn scheduled(&self, now: Instant) {
        if self.timeline.scheduled.set(now).is_ok() {
            self.meter.queue.observe_time(now.saturating_duration_since(self.timeline.received));
        }
    }

    /// A token is there.
    pub(crate) fn token(&self) {
        let (meter, timeline) = (&*self.meter, &*self.timeline);
        let now = Instant::now();
        let since = now.saturating_duration_since(timeline.received);
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let last = timeline.last_token.swap(nanos, Ordering::AcqRel);
        timeline.tokens.fetch_add(1, Ordering::AcqRel);
        if timeline.first_token.set(now).is_err() {
            return meter.between_tokens.observe(nanos.saturating_sub(last));
        }
        meter.first_token.observe(nanos);
        if meter.blit_queue_is_active() {
            meter.first_token_with_blit.observe(nanos);
        } else {
            meter.first_token_without_blit.observe(nanos);
        }
    }

    /// It has ended; `None`: it failed.
    pub(crate) fn end(&self, reason: Option<FinishReason>) {
        let now = Instant::now();
        if self.timeline.ended.set(now).is_err() {
            return;
        }
        let outcome = match reason {
            Some(FinishReason::Stop) => Outcome::Stop,
            Some(FinishReason::Length) => Outcome::Length,
            Some(FinishReason::Cancelled) if self.timeline.stopped.load(Ordering::Acquire) => Outcome::Stop,
            Some(FinishReason::Cancelled) => Outcome::Abort,
            None => Outcome::Error,
        };
        if matches!(outcome, Outcome::Stop | Outcome::Length) {
            self.complete(now);
        }
        self.meter.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn complete(&self, ended: Instant) {
        let (meter, timeline) = (&*self.meter, &*self.timeline);
        let (prompt, generated) = (timeline.prompt_tokens as u64, timeline.tokens());
        meter.prompt_tokens.observe(prompt);
        meter.generated_tokens.observe(generated);
        meter.whole.observe_time(ended.saturating_duration_since(timeline.received));
        let moments = (timeline.scheduled(), timeline.first_token(), timeline.last_token());
        if let (Some(scheduled), Some(first), Some(last)) = moments {
            let decode = last.saturating_duration_since(first);
            meter.prefill.observe_time(first.saturating_duration_since(scheduled));
            meter.decode.observe_time(decode);
            meter.inference.observe_time(last.saturating_duration_since(scheduled));
            if let Some(pauses) = generated.checked_sub(1).filter(|pauses| *pauses > 0) {
                meter.per_token.observe(u64::try_from(decode.as_nanos()).unwrap_or(u64::MAX) / pauses);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(statistics: &ServingStatistics) -> [u64; 8] {
        [
            &statistics.queue,
            &statistics.first_token,
            &statistics.first_token_without_blit,
            &statistics.between_tokens,
            &statistics.per_token,
            &statistics.whole,
            &statistics.prompt_tokens,
            &statistics.generated_tokens,
        ]
        .map(|histogram| histogram.count)
    }

    #[test]
    fn every_moment_is_counted_once() {
        let meter = ServingMeter::new(None);
        let request = meter.request(7);
        request.scheduled(request.timeline().received() + Duration::from_millis(30));
        request.scheduled(request.timeline().received() + Duration::from_secs(9));
        for _ in 0..3 {
            request.token();
        }
        assert_eq!(counts(&meter.statistics()), [1, 1, 1, 2, 0, 0, 0, 0]);
        request.end(Some(FinishReason::Length));
        request.end(None);
        let statistics = meter.statistics();
        assert_eq!(counts(&statistics), [1, 1, 1, 2, 1, 1, 1, 1]);
        assert_eq!(statistics.first_token_with_blit.count, 0);
        assert_eq!(statistics.outcomes, [0, 1, 0, 0]);
        assert!((statistics.queue.sum - 0.03).abs() < 1e-9, "the first time counts");
        assert_eq!((statistics.prompt_tokens.sum, statistics.generated_tokens.sum), (7.0, 3.0));
        let milliseconds = statistics.first_token_without_blit.sum;
        assert!((statistics.first_token.sum * 1e3 - milliseconds).abs() < 1e-6);
        let timeline = request.timeline();
        assert_eq!((timeline.prompt_tokens(), timeline.tokens()), (7, 3));
        let (first, last) = (timeline.first_token().unwrap(), timeline.last_token().unwrap());
        assert!(timeline.received() <= first && first <= last && last <= timeline.ended().unwrap());
        let decode = last.duration_since(first).as_secs_f64();
        assert!((statistics.decode.sum - decode).abs() < 1e-6);
        assert!((statistics.between_tokens.sum - decode).abs() < 1e-6);
        assert!((statistics.per_token.sum - decode / 2.0).abs() < 1e-6);
    }

    #[test]
    fn who_left_or_failed_is_no_complete_request() {
        let meter = ServingMeter::new(None);
        for (reason, stopped) in [
            (Some(FinishReason::Cancelled), false),
            (Some(FinishReason::Cancelled), true),
            (Some(FinishReason::Stop), false),
            (None, false),
            (None, true),
        ] {
            let request = meter.request(1);
            request.token();
            if stopped {
                request.timeline().stop();
            }
            request.end(reason);
        }
        let statistics = meter.statistics();
        assert_eq!(Outcome::ALL.map(Outcome::name), ["stop", "length", "abort", "error"]);
        assert_eq!(statistics.outcomes, [2, 0, 1, 2]);
        assert_eq!((statistics.first_token.count, statistics.whole.count), (5, 2));
        assert_eq!(statistics.per_token.count, 0, "one token has no time between tokens");
        assert_eq!(statistics.prefill.count, 0, "nothing was scheduled");
    }

    #[test]
    fn a_request_that_was_never_scheduled_has_no_times_of_the_device() {
        let timeline = ServingMeter::new(None).request(3).timeline().clone();
        assert_eq!(
            (timeline.scheduled(), timeline.first_token(), timeline.last_token(), timeline.ended()),
            (None, None, None, None)
        );
    }

    #[test]
    fn bounds_ascend() {
        for buckets in [&FIRST_TOKEN, &BETWEEN_TOKENS, &LATENCY, &FIRST_TOKEN_MS, &TOKENS] {
            let bounds: Vec<f64> = buckets.bounds().collect();
            assert!(bounds.is_sorted_by(|low, high| low < high), "{bounds:?}");
        }
    }
}
