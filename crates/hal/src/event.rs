//! Events: the only order between queues and towards the host.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{DeviceError, Result};

pub(crate) trait EventState: Send + Sync {
    fn value(&self) -> Result<u64>;
    fn wait(&self, value: u64, timeout: Duration) -> Result<bool>;
    fn signal(&self, value: u64);
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
            Err(DeviceError::Timeout { what: format!("event value {value}"), millis: timeout.as_millis() as u64 })
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
