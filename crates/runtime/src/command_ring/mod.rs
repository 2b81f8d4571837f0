//! The command ring: submissions in flight, so that the device has its next work before it ends the present.
//!
//! Design choices:
//!
//! - *On*: a submission returns at once, and as many as the ring has slots are in flight. A further one waits for the
//!   oldest, or for whoever holds a slot and has not submitted; when that takes longer than allowed, it goes ahead
//!   beyond the ring, which is counted and bounded.
//! - *Off*: a submission returns when the device is done with it. That is the plain path.
//! - *Nothing is called back.* What has ended is found when the ring is looked at next, so no code runs on a driver's
//!   thread, and a submission's error stays with the [`Submission`] that everybody who waits for it holds.
//! - *Times are the device's*: [`CommandRingStatistics::busy_ns`] adds up what its own clock says.
//! - *No lock is held across a wait* or a call of the device.

mod config;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_check;
mod ring;
mod slots;
mod statistics;
#[cfg(test)]
mod tests;

/// The lock and the clock of the ring. The model check compiles the ring with others, whose turns it decides.
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::time::Instant;
}

/// What the ring submits to: in the model check a device whose submissions end when the schedule says so.
mod device {
    pub(super) use bessemer_hal::{Device, Submission};
}

use bessemer_hal::{CommandBuffer, Event};

pub use config::CommandRingConfig;
pub use ring::{CommandRing, Slot};
pub use statistics::CommandRingStatistics;

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
