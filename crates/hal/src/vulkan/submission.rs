//! A submission on its way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::core::Core;
use crate::Result;
use crate::command::{SubmissionState, Timing};

/// How long a wait goes without looking whether the device was lost.
const SLICE: Duration = Duration::from_millis(50);

pub(crate) struct Task {
    pub(crate) core: Arc<Core>,
    pub(crate) lane: usize,
    /// Where the lane's timeline will be when it is done; zero while it is held on the host.
    pub(crate) point: AtomicU64,
    /// When the GPU got it, by the host's clock; for queues without timestamps.
    handed_over: OnceLock<u64>,
    pub(crate) outcome: OnceLock<Result<Timing>>,
}

impl Task {
    pub(crate) fn new(core: &Arc<Core>, lane: usize) -> Self {
        Self {
            core: core.clone(),
            lane,
            point: AtomicU64::new(0),
            handed_over: OnceLock::new(),
            outcome: OnceLock::new(),
        }
    }

    /// The GPU has it, and will have ended it when the lane's timeline comes to `point`.
    pub(crate) fn hand_over(&self, point: u64) {
        if self.core.clock.is_none() {
            self.handed_over.get_or_init(|| self.core.host_nanos());
        }
        self.point.store(point, Ordering::Release);
    }

    /// Its times by the host's clock.
    pub(crate) fn host_timing(&self) -> Timing {
        let end_ns = self.core.host_nanos();
        Timing { start_ns: self.handed_over.get().copied().unwrap_or(end_ns), end_ns }
    }
}

impl SubmissionState for Task {
    fn poll(&self) -> Option<Result<Timing>> {
        if self.outcome.get().is_none() {
            self.core.ledger.reap(&self.core, self.lane);
        }
        self.outcome.get().cloned()
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
            let left = left.min(SLICE);
            match self.point.load(Ordering::Acquire) {
                0 => self.core.ledger.wait_until(left, || {
                    self.outcome.get().is_some() || self.point.load(Ordering::Acquire) != 0
                }),
                // A failure is found, and made everybody's, by the next poll.
                point => drop(self.core.wait_for(self.lane, point, left)),
            }
        }
    }
}
