//! A device around a device that makes things fail, by a seeded schedule.
//!
//! It shows that what lies above the devices ends every request in exactly one reply, whatever the device does. All real
//! work is done by the device inside; nothing is imitated.
//!
//! - A fault is a *wait*. A submission that is to fail also waits for a value that has failed already; one that is to be
//!   late also waits for a value that a clock raises. So the device inside keeps the order of its queues, fails the events
//!   and what waits for them, and knows which bytes are in use, as it does in earnest. (Rejected: queues of this device's
//!   own, which would hide those of the device inside.)
//! - What is to fail *after* its commands is followed by a second, empty submission, which signals in its place and fails.
//!   A corrupted transfer is recorded again, with a copy of noise right behind the copy that is to go wrong, so that
//!   what reads those bytes later in the same submission sees them as they arrived.
//! - The schedule is a *function* of the seed, the kind of call and its number among the calls of its kind since
//!   [`FaultDevice::arm`]. One thread of calls meets the same faults with the same seed, in every version of this crate;
//!   several threads do for each kind of call, in the order in which these happen to be made.
//! - A call meets *one* fault at most.
//! - *Loss* is for good: every later call and every pending submission is answered with [`DeviceError::Lost`], values that
//!   were not reached never will be. The device inside lives on, and ends what it has; a new wrapper around it is the device
//!   after a restart.
//! - Texts of injected errors hold [`INJECTED`], so that they cannot be taken for real ones.
//!
//! Known gaps: a device without work ([`crate::noop`]) is never late, since it makes no waits, and has no bytes to corrupt.
//! A buffer of at most 16 bytes of noise counts as allocated while a corrupted transfer is under way. After a loss, what
//! waits for an event of another device keeps its memory until that event is raised, or the device inside is dropped.
//!
//! [`DeviceError::Lost`]: crate::DeviceError::Lost

mod clock;
mod core;
mod device;
mod draws;
mod encoder;
mod event;
mod plan;
mod schedule;
mod statistics;
mod submission;
mod submit;

pub use device::FaultDevice;
pub use plan::{Call, Fault, FaultPlan};
pub use statistics::FaultStatistics;

/// In the text of every error that was injected, except [`crate::DeviceError::Timeout`], which comes from the wait.
pub const INJECTED: &str = "injected fault";
