//! The self-check behind `metal_optimizations.enabled: auto`: do the optimisations give the same tokens here, and are
//! they no slower?
//!
//! - **A run** is one short greedy generation through scheduler, network and KV cache like any other. **A turn** is
//!   two runs on the plain path and two on the optimised one; the second of each is timed, since the first pays for
//!   what the switch has just made anew. Turns alternate, and the fastest run of each path counts, so that whatever
//!   else the machine does meanwhile weighs on neither.
//! - **It judges** after two turns when that speaks for the optimisations, else after four. Other tokens end it at
//!   once.
//! - **It runs while the engine is idle**, step by step: a request that comes in the middle of a run waits for the
//!   steps under way, two at most, and finds the plain path; the turn is begun again when the engine is idle once
//!   more. Loading waits for it for a moment ([`LOADING_WAITS`]), so that a program with one request has its answer
//!   too where steps are short.
//! - **The verdict is kept on disk** ([`Verdicts`]), unless it came of a failure that may pass.
//!
//! The rejected option is to check on the first requests themselves: it would need no time of its own, but a request
//! would then go down a path that nobody has vouched for.

mod verdicts;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use bessemer_runtime::{AutoState, Master, Runtime, Verdict};

use crate::{EngineError, Result, Sampling};

pub(crate) use verdicts::Verdicts;

/// How long loading waits for the verdict; then the check goes on while the engine is idle.
pub(crate) const LOADING_WAITS: Duration = Duration::from_secs(1);

/// Tokens of the prompt, fewer where the context is short. They decode like a prompt of few rows on every device.
const PROMPT: usize = 16;
/// Tokens of the output, and how many there must be for times to tell something.
const TOKENS: usize = 24;
const LEAST_TOKENS: usize = 8;

/// Turns before it may speak for the optimisations, and before it speaks against them.
const TURNS: std::ops::RangeInclusive<usize> = 2..=4;

/// A check, and where it is.
#[derive(Debug)]
pub(crate) struct SelfCheck {
    runtime: Arc<Runtime>,
    verdicts: Verdicts,
    vocab: usize,
    context: usize,
    /// Whether a verdict is missing.
    due: bool,
    /// Whether a run is under way.
    running: bool,
    /// The runs of this turn that have ended.
    runs: Vec<Result<CheckRun>>,
    /// Of each turn: decoding time on the plain path, and on the other.
    times: Vec<(Duration, Duration)>,
    /// Dropped with the verdict: whoever loads the engine waits for that.
    loading: Option<SyncSender<()>>,
}

/// A generation of the check.
#[derive(Clone, Debug)]
pub(crate) struct CheckRun {
    pub(crate) sampling: Sampling,
    /// What was generated.
    tokens: Vec<u32>,
    wanted: usize,
    /// When the first token came, and the last.
    first: Option<Instant>,
    last: Option<Instant>,
}

impl CheckRun {
    fn new(wanted: usize) -> Self {
        Self {
            sampling: Sampling::greedy(),
            tokens: Vec::with_capacity(wanted),
            wanted,
            first: None,
            last: None,
        }
    }

    /// Takes a token; whether it was the last.
    pub(crate) fn take(&mut self, token: u32) -> bool {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.tokens.push(token);
        self.tokens.len() >= self.wanted
    }

    /// Tokens that it is to generate.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// From the first token to the last.
    fn decoding(&self) -> Duration {
        self.first
            .zip(self.last)
            .map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first))
    }
}

impl SelfCheck {
    /// A check of a model with this vocabulary and context, due if `runtime` wants it and `verdicts` has none.
    /// `loading` is dropped when it is not due any more.
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        verdicts: Verdicts,
        (vocab, context): (usize, usize),
        loading: SyncSender<()>,
    ) -> Self {
        let (runs, times) = (Vec::new(), Vec::new());
        let loading = Some(loading);
        let mut check =
            Self { runtime, verdicts, vocab, context, due: false, running: false, runs, times, loading };
        check.restart();
        check
    }

    /// Other settings: they are due, unless nobody asks or their verdict is known.
    pub(crate) fn restart(&mut self) {
        self.runs.clear();
        self.times.clear();
        let settings = self.runtime.settings();
        self.due = settings.enabled == Master::Auto;
        if !self.due {
            self.loading = None;
            return;
        }
        match self.verdicts.find(&settings) {
            Some(verdict) => {
                tracing::info!("metal_optimizations auto: {verdict}");
                self.conclude(verdict);
            }
            None => self.runtime.set_auto(AutoState::Unchecked),
        }
    }

    /// Whether a run is under way.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Begins the next run, if one is due: its prompt, and the run. The engine is idle.
    pub(crate) fn begin(&mut self) -> Option<(Vec<u32>, CheckRun)> {
        self.judge();
        if !self.due {
            return None;
        }
        let prompt = PROMPT.min(self.context / 2).max(1);
        let wanted = TOKENS.min(self.context.saturating_sub(prompt));
        if wanted < LEAST_TOKENS {
            let context = self.context;
            self.pronounce(Err(format!("a context of {context} tokens is too short for a check")));
            return None;
        }
        self.runtime.set_auto(if self.runs.len() < 2 { AutoState::Unchecked } else { AutoState::Trial });
        self.running = true;
        let ids = (0..prompt).map(|at| ((at * 7919 + 13) % self.vocab.max(1)) as u32).collect();
        Some((ids, CheckRun::new(wanted)))
    }

    /// A run has ended, well or not.
    pub(crate) fn ended(&mut self, run: Result<CheckRun>) {
        self.running = false;
        self.runs.push(run);
    }

    /// A request comes: it goes first, on the plain path unless there is a verdict by now. No step is under way.
    pub(crate) fn give_way(&mut self) {
        self.judge();
        if self.due && (self.running || !self.runs.is_empty()) {
            self.runs.clear();
            self.runtime.set_auto(AutoState::Unchecked);
        }
        self.running = false;
    }

    /// Looks at the runs of this turn, and, where it is complete, at all turns.
    fn judge(&mut self) {
        if !self.due || self.runs.is_empty() {
            return;
        }
        if let Some(error) = self.runs.iter().find_map(|run| run.as_ref().err().cloned()) {
            return self.pronounce(Err(failure(&error)));
        }
        let runs: Vec<_> = self.runs.iter().flatten().collect();
        if let Some(reason) = self.latched() {
            return self.pronounce(Err(reason));
        }
        let Some(plain) = runs.first() else { return };
        let differs = |run: &&CheckRun| plain.tokens.iter().zip(&run.tokens).position(|(a, b)| a != b);
        if let Some(at) = runs.iter().find_map(differs) {
            let place = format!("greedy token {} of {} differs from the plain path's", at + 1, plain.wanted);
            return self.pronounce(Ok(Verdict::failed(place, now())));
        }
        let [_, plain, _, tried] = runs.as_slice() else { return };
        self.times.push((plain.decoding(), tried.decoding()));
        self.runs.clear();
        let fastest = |time: fn(&(Duration, Duration)) -> Duration| {
            self.times.iter().map(time).min().unwrap_or_default().as_secs_f64().max(1e-9)
        };
        let verdict = Verdict::same_tokens(fastest(|turn| turn.0) / fastest(|turn| turn.1), now());
        let turns = self.times.len();
        if turns >= *TURNS.end() || (turns >= *TURNS.start() && verdict.is_on()) {
            self.pronounce(Ok(verdict));
        }
    }

    /// Why a feature was latched off while it was tried.
    fn latched(&self) -> Option<String> {
        let features = self.runtime.optimization_stats().features;
        let latched = features.into_iter().find_map(|status| Some((status.feature, status.latched?)));
        latched.map(|(feature, reason)| format!("{} failed: {reason}", feature.name()))
    }

    /// Ends the check: with a verdict that is kept, or with what kept it from one.
    fn pronounce(&mut self, outcome: Result<Verdict, String>) {
        let verdict = match outcome {
            Ok(verdict) => {
                self.verdicts.keep(&self.runtime.settings(), &verdict);
                verdict
            }
            Err(reason) => Verdict::failed(reason, now()),
        };
        tracing::info!(turns = self.times.len(), "metal_optimizations auto: {verdict}");
        self.conclude(verdict);
    }

    fn conclude(&mut self, verdict: Verdict) {
        self.runtime.set_auto(AutoState::Judged(verdict));
        self.due = false;
        self.runs.clear();
        self.times.clear();
        self.loading = None;
    }
}

fn failure(error: &EngineError) -> String {
    format!("the check failed: {error}")
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
