//! The command ring: submissions in flight, so that the device has its next work before it ends the present.
//!
//! Design choices:
//!
//! - *On*: a submission returns at once, and as many as the ring has slots are in flight. A further one waits for the
//!   oldest; when that takes longer than allowed, it goes ahead beyond the ring, which is counted and bounded.
//! - *Off*: a submission returns when the device is done with it. That is the plain path.
//! - *Nothing is called back.* What has ended is found when the ring is looked at next, so no code runs on a driver's
//!   thread, and a submission's error stays with the [`Submission`] that everybody who waits for it holds.
//! - *Times are the device's*: [`CommandRingStatistics::busy_ns`] adds up what its own clock says.
//! - *No lock is held across a wait* or a call of the device.

mod config;
mod slots;
mod statistics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bessemer_hal::{
    CommandBuffer, Device, DeviceError, Event, QueueKind, Result, Submission, Submit, Timing,
};

use crate::SettingError;
pub use config::CommandRingConfig;
use slots::{InFlight, Slots, Want};
pub use statistics::CommandRingStatistics;
use statistics::Counters;

/// With the ring off, how long a submission may take.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(1800);

/// Work for the compute queue.
#[derive(Clone, Copy, Debug)]
pub struct RingWork<'a> {
    /// What to run.
    pub commands: &'a CommandBuffer,
    /// Starts when each event has reached its value.
    pub wait: &'a [(Event, u64)],
    /// Raised when the commands are done.
    pub signal: &'a [(Event, u64)],
    /// Whether these commands were submitted before.
    pub reused: bool,
}

/// Hands command buffers to the compute queue of a device.
#[derive(Debug)]
pub struct CommandRing {
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: CommandRingConfig,
    enabled: bool,
    slots: Slots<Submission>,
    counters: Counters,
}

impl InFlight for Submission {
    fn poll(&self) -> Option<Result<Timing>> {
        Submission::poll(self)
    }
}

/// A place in the ring. Dropping it unused gives it back.
#[derive(Debug)]
pub struct Slot<'r> {
    ring: &'r CommandRing,
    used: bool,
}

impl CommandRing {
    /// A ring of a device; on when `enabled`.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(
        device: Arc<dyn Device>,
        config: CommandRingConfig,
        enabled: bool,
    ) -> Result<Self, SettingError> {
        config.validate()?;
        let state = State { config, enabled, slots: Slots::default(), counters: Counters::default() };
        Ok(Self { device, state: Mutex::new(state) })
    }

    /// Whether submissions return before the device is done with them.
    pub fn is_enabled(&self) -> bool {
        self.lock().enabled
    }

    /// Switches it. What is in flight stays in flight.
    pub fn set_enabled(&self, enabled: bool) {
        self.lock().enabled = enabled;
    }

    /// The settings.
    pub fn config(&self) -> CommandRingConfig {
        self.lock().config.clone()
    }

    /// Other settings from now on. A smaller ring drains by itself.
    ///
    /// # Errors
    /// When one is out of its range; then nothing changes.
    pub fn reconfigure(&self, config: CommandRingConfig) -> Result<(), SettingError> {
        config.validate()?;
        self.lock().config = config;
        Ok(())
    }

    /// Takes a slot; waits for the oldest submission where the ring is full and told to wait.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] when so many went ahead beyond the ring that none may any more.
    pub fn acquire_next(&self) -> Result<Slot<'_>> {
        let mut beyond = false;
        loop {
            let (want, patience) = {
                let mut state = self.lock();
                state.reap();
                let State { config, enabled, slots, counters } = &mut *state;
                let free = slots.taken() < config.ring_size;
                beyond |= !config.wait_on_full_ring || !*enabled;
                let want = slots.want(config.ring_size, beyond);
                if matches!(want, Want::Go) {
                    if config.track_statistics {
                        counters.acquired += 1;
                        counters.exhaustions += u64::from(!free);
                    }
                    if !free && config.log_ring_exhaustion {
                        tracing::warn!(
                            ring_size = config.ring_size,
                            "the command ring is full; going ahead beyond it"
                        );
                    }
                }
                (want, config.max_wait())
            };
            match want {
                Want::Go => return Ok(Slot { ring: self, used: false }),
                Want::Refused => {
                    let what = "a slot of the command ring; the device seems to hang".into();
                    return Err(DeviceError::Timeout { what, millis: patience.as_millis() as u64 });
                }
                Want::Yield => std::thread::yield_now(),
                Want::WaitFor(oldest) => beyond = !self.wait(&oldest, patience),
            }
        }
    }

    /// Submits to the compute queue. With the ring off, waits until it is done.
    ///
    /// # Errors
    /// As [`CommandRing::acquire_next`] and [`Device::submit`]; with the ring off, also how the work failed.
    pub fn submit(&self, work: RingWork<'_>) -> Result<Submission> {
        let submission = self.acquire_next()?.submit(work)?;
        if !self.is_enabled() {
            let started = Instant::now();
            let outcome = submission.wait(PLAIN_TIMEOUT);
            let mut state = self.lock();
            if state.config.track_statistics {
                state.counters.waited(started.elapsed());
            }
            state.reap();
            drop(state);
            outcome?;
        }
        Ok(submission)
    }

    /// Waits until nothing is in flight.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`]. How a submission ended is told by the submission.
    pub fn wait_for_all(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let newest = {
                let mut state = self.lock();
                state.reap();
                state.slots.newest()
            };
            let Some(newest) = newest else { return Ok(()) };
            if let Err(timeout @ DeviceError::Timeout { .. }) =
                newest.wait(deadline.saturating_duration_since(Instant::now()))
            {
                return Err(timeout);
            }
        }
    }

    /// What happened so far, and what is in flight.
    pub fn get_statistics(&self) -> CommandRingStatistics {
        let mut state = self.lock();
        state.reap();
        let State { config, slots, counters, .. } = &*state;
        counters.report(config.ring_size, slots.taken(), slots.in_flight())
    }

    /// Starts counting anew.
    pub fn reset_statistics(&self) {
        let mut state = self.lock();
        state.reap();
        state.counters = Counters::default();
    }

    /// Waits for the oldest submission; `false` when that took longer than `patience`.
    fn wait(&self, oldest: &Submission, patience: Duration) -> bool {
        let started = Instant::now();
        let outcome = oldest.wait(patience);
        let waited = started.elapsed();
        let late = matches!(outcome, Err(DeviceError::Timeout { .. }));
        let mut state = self.lock();
        if state.config.track_statistics {
            state.counters.waited(waited);
            state.counters.timeouts += u64::from(late);
        }
        !late
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes those out that have ended. Looking at a submission is a load, or a call that returns at once.
    fn reap(&mut self) {
        let Self { config, slots, counters, .. } = self;
        slots.reap(|outcome| {
            if config.track_statistics {
                counters.ended(&outcome);
            }
        });
    }
}

impl Slot<'_> {
    /// Uses the slot.
    ///
    /// # Errors
    /// As [`Device::submit`]; the slot is free again then.
    pub fn submit(mut self, work: RingWork<'_>) -> Result<Submission> {
        let RingWork { commands, wait, signal, reused } = work;
        let submission = self.ring.device.submit(QueueKind::Compute, Submit { commands, wait, signal })?;
        self.used = true;
        let mut state = self.ring.lock();
        state.slots.fill(submission.clone());
        if state.config.track_statistics {
            state.counters.submitted += 1;
            state.counters.reused += u64::from(reused);
        }
        Ok(submission)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.ring.lock().slots.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
