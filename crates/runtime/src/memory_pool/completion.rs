//! When the device is done with a buffer.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::{DeviceError, Event, Submission};

/// Tells when the device uses a buffer no more: never guessed, always asked.
#[derive(Clone, Debug)]
pub enum Completion {
    /// When all of these have ended, well or not.
    Submissions(Arc<[Submission]>),
    /// When the event has reached the value, or the submission that should have raised it has failed.
    Event(Event, u64),
}

impl Completion {
    /// Asks the device, without waiting. A failure is an end: nothing of a failed submission runs any more.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Submissions(submissions) => submissions.iter().all(|one| one.poll().is_some()),
            Self::Event(event, value) => {
                !matches!(event.wait(*value, Duration::ZERO), Err(DeviceError::Timeout { .. }))
            }
        }
    }
}

impl From<&Submission> for Completion {
    fn from(submission: &Submission) -> Self {
        Self::Submissions(Arc::new([submission.clone()]))
    }
}

impl From<&[Submission]> for Completion {
    fn from(submissions: &[Submission]) -> Self {
        Self::Submissions(submissions.into())
    }
}

impl From<(&Event, u64)> for Completion {
    fn from((event, value): (&Event, u64)) -> Self {
        Self::Event(event.clone(), value)
    }
}
