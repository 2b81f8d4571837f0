//! A submission of the device inside, or two in a row that count as one.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::event::FaultEvent;
use crate::command::{SubmissionState, Timing};
use crate::{DeviceError, Result, Submission};

/// How long a wait goes without looking whether the device was lost.
const SLICE: Duration = Duration::from_millis(10);

pub(crate) struct FaultSubmission {
    /// The commands, where something goes wrong behind them.
    first: Option<Submission>,
    last: Submission,
    signal: Vec<(Arc<FaultEvent>, u64)>,
    /// Whatever comes first: the end inside, or the loss of the device.
    outcome: OnceLock<Result<Timing>>,
}

impl FaultSubmission {
    /// A submission that raises `signal`.
    pub(crate) fn new(
        first: Option<Submission>,
        last: Submission,
        signal: Vec<(Arc<FaultEvent>, u64)>,
    ) -> Self {
        Self { first, last, signal, outcome: OnceLock::new() }
    }

    /// How it ended, once it has.
    pub(crate) fn outcome(&self) -> Option<&Result<Timing>> {
        if self.outcome.get().is_none() {
            let outcome = self.inside()?;
            self.outcome.get_or_init(|| {
                if outcome.is_ok() {
                    // Before anybody knows of the end, so that no loss comes between.
                    self.signal.iter().for_each(|(event, value)| event.note(*value));
                }
                outcome
            });
        }
        self.outcome.get()
    }

    /// Fails it, unless it has ended.
    pub(crate) fn fail(&self, error: &DeviceError) {
        self.outcome.get_or_init(|| Err(error.clone()));
    }

    fn inside(&self) -> Option<Result<Timing>> {
        let last = self.last.poll()?;
        let Some(first) = &self.first else { return Some(last) };
        let first = first.poll()?;
        Some(first.and_then(|first| Ok(Timing { start_ns: first.start_ns, end_ns: last?.end_ns })))
    }
}

impl SubmissionState for FaultSubmission {
    fn poll(&self) -> Option<Result<Timing>> {
        self.outcome().cloned()
    }

    fn wait(&self, timeout: Duration) -> Option<Result<Timing>> {
        let begin = Instant::now();
        loop {
            if let Some(outcome) = self.poll() {
                return Some(outcome);
            }
            let left = timeout.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return None;
            }
            // The last may have failed while the first still runs.
            let running = self.first.as_ref().filter(|first| first.poll().is_none()).unwrap_or(&self.last);
            running.state.wait(left.min(SLICE));
        }
    }
}
