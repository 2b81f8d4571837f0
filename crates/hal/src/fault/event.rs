//! Events of the device inside, which are lost with this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::core::Core;
use crate::event::EventState;
use crate::{DeviceError, Event, Result};

/// How long a wait goes without looking whether the device was lost.
const SLICE: Duration = Duration::from_millis(10);

pub(crate) struct FaultEvent {
    core: Arc<Core>,
    pub(crate) inner: Event,
    /// What it is known to have reached: all that stays reached when the device is lost. The device inside goes on then,
    /// and raises the event for submissions that were reported as lost.
    reached: AtomicU64,
}

impl FaultEvent {
    pub(crate) fn event(core: &Arc<Core>, inner: Event, initial: u64) -> Event {
        Event { state: Arc::new(Self { core: core.clone(), inner, reached: AtomicU64::new(initial) }) }
    }

    /// The event behind a handle, if it is of the device.
    pub(crate) fn of(event: &Event, core: &Arc<Core>) -> Option<Arc<Self>> {
        let any: Arc<dyn std::any::Any + Send + Sync> = event.state.clone();
        any.downcast::<Self>().ok().filter(|event| Arc::ptr_eq(&event.core, core))
    }

    /// It has come to `value`.
    pub(crate) fn note(&self, value: u64) {
        self.reached.fetch_max(value, Ordering::AcqRel);
    }
}

impl EventState for FaultEvent {
    fn value(&self) -> Result<u64> {
        self.core.alive()?;
        let value = self.inner.state.value()?;
        self.core.alive()?;
        self.note(value);
        Ok(value)
    }

    fn wait(&self, value: u64, timeout: Duration) -> Result<bool> {
        let begin = Instant::now();
        loop {
            if let Some(error) = self.core.over() {
                self.inner.state.wait(value, Duration::ZERO)?;
                // What was reached stays so.
                let reached = self.reached.load(Ordering::Acquire) >= value;
                return if reached { Ok(true) } else { Err(error.clone()) };
            }
            let left = timeout.saturating_sub(begin.elapsed());
            let reached = self.inner.state.wait(value, left.min(SLICE))?;
            if self.core.alive().is_err() {
                // It is being found out what had ended before.
                std::thread::yield_now();
            } else if reached {
                self.note(value);
                return Ok(true);
            } else if left <= SLICE {
                return Ok(false);
            }
        }
    }

    fn signal(&self, value: u64) {
        self.inner.state.signal(value);
        self.note(value);
    }

    fn fail(&self, value: u64, error: DeviceError) {
        self.inner.state.fail(value, error);
    }
}
