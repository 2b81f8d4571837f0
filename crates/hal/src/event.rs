//! Events: the only order between queues and towards the host.
//!
//! An event is *poisoned by range*. When a submission fails that should have raised the event from `u` to `v`, the
//! values in `(u, v]` are failed for good: whoever waits for one of them, then or later, gets the error. Higher
//! values are untouched: they are waited for as before, and a later success reaches them. So one failed step cannot
//! pass for a good one, and the event serves on.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::monitor::Monitor;
use crate::{DeviceError, Result};

pub(crate) trait EventState: Any + Send + Sync {
    fn value(&self) -> Result<u64>;
    fn wait(&self, value: u64, timeout: Duration) -> Result<bool>;
    fn signal(&self, value: u64);
    /// The submission that should have raised it to `value` failed.
    fn fail(&self, value: u64, error: DeviceError);
}

/// An event that lives in host memory.
pub(crate) struct HostEvent {
    standing: Monitor<Standing>,
}

struct Standing {
    value: u64,
    failed: Option<Failed>,
}

/// Values in `(after, through]` will never be reached. Failures that follow one another widen one range, because
/// only the last error is worth keeping.
struct Failed {
    after: u64,
    through: u64,
    error: DeviceError,
}

impl HostEvent {
    pub(crate) fn event(initial: u64) -> Event {
        let standing = Monitor::new(Standing { value: initial, failed: None });
        Event { state: Arc::new(Self { standing }) }
    }
}

impl EventState for HostEvent {
    fn value(&self) -> Result<u64> {
        self.standing.look(|now| match &now.failed {
            Some(failed) if now.value < failed.through => Err(failed.error.clone()),
            _ => Ok(now.value),
        })
    }

    fn wait(&self, value: u64, timeout: Duration) -> Result<bool> {
        let outcome = self.standing.wait(timeout, |now| match &now.failed {
            Some(failed) if failed.after < value && value <= failed.through => {
                Some(Err(failed.error.clone()))
            }
            _ => (now.value >= value).then_some(Ok(true)),
        });
        outcome.unwrap_or(Ok(false))
    }

    fn signal(&self, value: u64) {
        self.standing.update(|now| now.value = now.value.max(value));
    }

    fn fail(&self, value: u64, error: DeviceError) {
        self.standing.update(|now| {
            if value > now.value {
                let after = now.failed.as_ref().map_or(now.value, |failed| failed.after);
                let through = now.failed.as_ref().map_or(value, |failed| failed.through.max(value));
                now.failed = Some(Failed { after, through, error });
            }
        });
    }
}

/// A monotonic counter that host and queues raise and wait for. Cloning shares it.
#[derive(Clone)]
pub struct Event {
    pub(crate) state: Arc<dyn EventState>,
}

impl Event {
    /// The value reached so far.
    ///
    /// # Errors
    /// The error of the submission that should have raised it, when that failed.
    pub fn value(&self) -> Result<u64> {
        self.state.value()
    }

    /// Waits until `value` is reached.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`], or the error of the submission that should have raised it.
    pub fn wait(&self, value: u64, timeout: Duration) -> Result<()> {
        if self.state.wait(value, timeout)? {
            Ok(())
        } else {
            Err(DeviceError::Timeout {
                what: format!("event value {value}"),
                millis: timeout.as_millis() as u64,
            })
        }
    }

    /// Raises it from the host. Lower values than the present one change nothing.
    pub fn signal(&self, value: u64) {
        self.state.signal(value);
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?})", self.value())
    }
}
