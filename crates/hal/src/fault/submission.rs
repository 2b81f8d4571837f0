//! A submission of the device inside, or two in a row that count as one.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::core::Core;
use super::event::FaultEvent;
use crate::command::{SubmissionState, Timing};
use crate::{DeviceError, Result, Submission};

/// How long a wait goes without looking whether the device was lost.
const SLICE: Duration = Duration::from_millis(10);

pub(crate) struct FaultSubmission {
    core: Arc<Core>,
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
        core: &Arc<Core>,
        (first, last): (Option<Submission>, Submission),
        signal: Vec<(Arc<FaultEvent>, u64)>,
    ) -> Self {
        Self { core: core.clone(), first, last, signal, outcome: OnceLock::new() }
    }

    /// How it ended, once it has. While the device is being lost, [`Core`] alone decides.
    pub(crate) fn outcome(&self) -> Option<&Result<Timing>> {
        if self.outcome.get().is_none() {
            let outcome = self.inside()?;
            // Asked afterwards: what had ended while the device was there had done so before the loss.
            self.core.alive().ok()?;
            self.set(outcome);
        }
        self.outcome.get()
    }

    /// Whether it has ended inside, which then is how it ended. Waits until `deadline` if its end lags behind the events
    /// that it raises.
    pub(crate) fn settle(&self, deadline: Instant) -> bool {
        let raised = |(event, value): &(Arc<FaultEvent>, u64)| {
            event.inner.state.wait(*value, Duration::ZERO) == Ok(true)
        };
        if self.inside().is_none() && !self.signal.is_empty() && self.signal.iter().all(raised) {
            // Others may have started after its events. It ends in a moment, unless it was not what raised them.
            self.last.state.wait(deadline.saturating_duration_since(Instant::now()));
        }
        if let Some(outcome) = self.inside() {
            self.set(outcome);
        }
        self.outcome.get().is_some()
    }

    fn set(&self, outcome: Result<Timing>) {
        self.outcome.get_or_init(|| {
            if outcome.is_ok() {
                // Before anybody knows of the end, so that no loss comes between.
                self.signal.iter().for_each(|(event, value)| event.note(*value));
            }
            outcome
        });
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
            if self.core.alive().is_err() {
                // It is being found out what had ended before.
                std::thread::yield_now();
            }
        }
    }
}
