//! The ring on a device.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bessemer_hal::{DeviceError, QueueKind, Result, Submit, Timing};

use super::RingWork;
use super::config::CommandRingConfig;
use super::device::{Device, Submission};
use super::slots::{InFlight, Slots, Want};
use super::statistics::{CommandRingStatistics, Counters};
use super::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::SettingError;
use crate::histogram::{DEVICE_TIMES, Histogram, HistogramSnapshot};

/// With the ring off, how long a submission may take.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(1800);

/// Hands command buffers to the compute queue of a device.
#[derive(Debug)]
pub struct CommandRing {
    device: Arc<dyn Device>,
    state: Mutex<State>,
    /// A slot that was given out was used or came back, or other settings hold.
    changed: Condvar,
    waits: Histogram,
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
        let waits = Histogram::new(&DEVICE_TIMES);
        Ok(Self { device, state: Mutex::new(state), changed: Condvar::new(), waits })
    }

    /// Whether submissions return before the device is done with them.
    pub fn is_enabled(&self) -> bool {
        self.lock().enabled
    }

    /// Switches it. What is in flight stays in flight.
    pub fn set_enabled(&self, enabled: bool) {
        self.change(|state| state.enabled = enabled);
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
        self.change(|state| {
            let counts_again = config.track_statistics && !state.config.track_statistics;
            state.config = config;
            if counts_again {
                state.reset();
            }
        });
        Ok(())
    }

    /// Takes a slot. Where the ring is full and told to wait, waits until the oldest submission has ended, or while
    /// other slots are held and not used, for [`CommandRingConfig::max_wait_ms`] at most.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] when so many went ahead beyond the ring that none may any more.
    pub fn acquire_next(&self) -> Result<Slot<'_>> {
        let begin = Instant::now();
        let mut waited: Option<Duration> = None;
        let mut state = self.lock();
        loop {
            state.reap();
            let State { config, enabled, slots, counters } = &mut *state;
            let full = slots.taken() >= config.ring_size;
            let left = config.max_wait().saturating_sub(waited.unwrap_or_default());
            let beyond = !config.wait_on_full_ring || !*enabled || left.is_zero();
            match slots.want(config.ring_size, beyond) {
                Want::WaitFor(oldest) => {
                    drop(state);
                    // How it ended is found when the ring is looked at again.
                    let _ = oldest.wait(left);
                    state = self.lock();
                }
                Want::WaitForOthers => {
                    let woken = self.changed.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                Want::Refused => {
                    if config.track_statistics {
                        counters.arrived(waited, left.is_zero());
                        self.observe_wait(waited);
                    }
                    let what = "a slot of the command ring; the device seems to hang".into();
                    let waited = waited.unwrap_or_default().min(config.max_wait());
                    return Err(DeviceError::Timeout { what, millis: waited.as_millis() as u64 });
                }
                Want::Go => {
                    if config.track_statistics {
                        counters.arrived(waited, full && left.is_zero());
                        self.observe_wait(waited);
                        counters.acquired += 1;
                        counters.exhaustions += u64::from(full);
                    }
                    let ring_size = config.ring_size;
                    let tell = full && config.log_ring_exhaustion;
                    drop(state);
                    if tell {
                        tracing::warn!(ring_size, "the command ring is full; going ahead beyond it");
                    }
                    return Ok(Slot { ring: self, used: false });
                }
            }
            waited = Some(begin.elapsed());
        }
    }

    /// Submits to the compute queue. With the ring off, waits until it is done.
    ///
    /// # Errors
    /// As [`CommandRing::acquire_next`] and [`Device::submit`]; with the ring off, also how the work failed.
    pub fn submit(&self, work: RingWork<'_>) -> Result<Submission> {
        let submission = self.acquire_next()?.submit(work)?;
        if !self.is_enabled() {
            let begin = Instant::now();
            let outcome = submission.wait(PLAIN_TIMEOUT);
            let waited = Some(begin.elapsed());
            let late = matches!(outcome, Err(DeviceError::Timeout { .. }));
            let mut state = self.lock();
            if state.config.track_statistics {
                state.counters.arrived(waited, late);
                self.observe_wait(waited);
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
        let begin = Instant::now();
        loop {
            let newest = {
                let mut state = self.lock();
                state.reap();
                state.slots.newest()
            };
            let Some(newest) = newest else { return Ok(()) };
            let outcome = newest.wait(timeout.saturating_sub(begin.elapsed()));
            if let Err(late @ DeviceError::Timeout { .. }) = outcome {
                return Err(late);
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

    /// The waits that [`CommandRingStatistics::wait_events`] counts, one by one, in seconds. It is never reset.
    pub fn waits(&self) -> HistogramSnapshot {
        self.waits.snapshot()
    }

    fn observe_wait(&self, waited: Option<Duration>) {
        if let Some(time) = waited {
            self.waits.observe_time(time);
        }
    }

    /// Starts counting anew. What is in flight counts as acquired and submitted, held slots as acquired.
    pub fn reset_statistics(&self) {
        self.lock().reset();
    }

    /// Changes what those who wait for a slot look at.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reset(&mut self) {
        self.reap();
        self.counters = Counters::new(self.slots.taken(), self.slots.in_flight());
    }

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
        self.ring.change(|state| {
            state.slots.fill(submission.clone());
            if state.config.track_statistics {
                state.counters.submitted += 1;
                state.counters.reused += u64::from(reused);
            }
        });
        Ok(submission)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.ring.change(|state| state.slots.give_back());
        }
    }
}
