//! The state of a submission on devices that complete it from a thread of this process.

use std::time::Duration;

use crate::command::{SubmissionState, Timing};
use crate::monitor::Monitor;
use crate::{Result, Submission};

/// Set once, by the queue.
#[derive(Default)]
pub(crate) struct HostSubmission {
    outcome: Monitor<Option<Result<Timing>>>,
}

impl HostSubmission {
    pub(crate) fn complete(&self, outcome: Result<Timing>) {
        self.outcome.update(|state| *state = Some(outcome));
    }

    pub(crate) fn handle(self: &std::sync::Arc<Self>) -> Submission {
        Submission { state: self.clone() }
    }
}

impl SubmissionState for HostSubmission {
    fn poll(&self) -> Option<Result<Timing>> {
        self.outcome.look(Clone::clone)
    }

    fn wait(&self, timeout: Duration) -> Option<Result<Timing>> {
        self.outcome.wait(timeout, Clone::clone)
    }
}
