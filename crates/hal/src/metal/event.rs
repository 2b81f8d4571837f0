//! Events: a host event, and which submissions will raise it.
//!
//! - The *value* lives on the host, with the rules of failure that every device has. So an event can be raised from
//!   anywhere, in any order, and its values can fail.
//! - A *promise* is a submission that the GPU has and that will raise it: a tick of a lane's timeline. Whoever waits for a
//!   promised value is handed to the GPU at once and waits there.

use std::any::Any;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::event::{EventState, HostEvent};
use crate::monitor::lock;
use crate::{DeviceError, Event, Result};

/// Moves on what an event held back.
pub(crate) trait Pump: Send + Sync {
    fn pump(&self);
}

/// What an event of this device is behind its handle.
pub(crate) struct MetalEvent {
    device: u64,
    host: Event,
    promises: Mutex<Vec<Promise>>,
    pump: Weak<dyn Pump>,
}

/// The event will stand at `value` when `lane` has come to `tick`.
struct Promise {
    value: u64,
    lane: usize,
    tick: u64,
}

/// What is known of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    Reached,
    Promised { lane: usize, tick: u64 },
    Failed(DeviceError),
    Unknown,
}

impl MetalEvent {
    pub(crate) fn event(device: u64, pump: Weak<dyn Pump>, initial: u64) -> Event {
        let host = HostEvent::event(initial);
        Event { state: Arc::new(Self { device, host, promises: Mutex::default(), pump }) }
    }

    /// The event behind a handle, if it is of the device.
    pub(crate) fn of(event: &Event, device: u64) -> Option<Arc<Self>> {
        let state: Arc<dyn Any + Send + Sync> = event.state.clone();
        state.downcast::<Self>().ok().filter(|event| event.device == device)
    }

    pub(crate) fn outlook(&self, value: u64) -> Outlook {
        match self.host.state.wait(value, Duration::ZERO) {
            Ok(true) => Outlook::Reached,
            Err(error) => Outlook::Failed(error),
            Ok(false) => {
                let promises = lock(&self.promises);
                let first = promises.iter().filter(|p| p.value >= value).min_by_key(|p| p.value);
                first.map_or(Outlook::Unknown, |p| Outlook::Promised { lane: p.lane, tick: p.tick })
            }
        }
    }

    /// The GPU takes a submission that raises it.
    pub(crate) fn promise(&self, value: u64, lane: usize, tick: u64) {
        lock(&self.promises).push(Promise { value, lane, tick });
    }

    /// A submission that should raise it has ended. Nothing that waits is moved on: the ledger does that.
    pub(crate) fn settle(&self, value: u64, lane: usize, tick: u64, error: Option<&DeviceError>) {
        match error {
            None => self.host.state.signal(value),
            Some(error) => self.host.state.fail(value, error.clone()),
        }
        // After the value, so that there is no moment at which the outlook is unknown.
        let mut promises = lock(&self.promises);
        if let Some(kept) = promises.iter().position(|p| (p.value, p.lane, p.tick) == (value, lane, tick)) {
            promises.swap_remove(kept);
        }
    }

    fn pump(&self) {
        if let Some(pump) = self.pump.upgrade() {
            pump.pump();
        }
    }
}

impl EventState for MetalEvent {
    fn value(&self) -> Result<u64> {
        self.host.state.value()
    }

    fn wait(&self, value: u64, timeout: Duration) -> Result<bool> {
        self.host.state.wait(value, timeout)
    }

    fn signal(&self, value: u64) {
        self.host.state.signal(value);
        self.pump();
    }

    fn fail(&self, value: u64, error: DeviceError) {
        self.host.state.fail(value, error);
        self.pump();
    }
}
