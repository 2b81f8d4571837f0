//! Checks that a device computes what the CPU device computes, for users with a new machine and for the tests alike.
//!
//! - A [`Check`] is a *function* with a name: it gets the device beside a CPU device ([`Twin`]) and a seeded generator,
//!   and draws its own shapes, so that repeating it with other seeds checks other shapes.
//! - It ends in an [`Outcome`]: passed, or a [`Failure`] that says what was computed and what should have been. A device
//!   that cannot run it at all says [`Failure::Skipped`].
//! - Checks cannot end the run ([`Selftest`]): a panic is a failure, and after a lost or hanging device the next check
//!   gets a fresh one.
//! - Nothing here needs files: a user runs it on a machine with nothing but the program.
//!
//! [`soak`] is for the engine as a whole: requests by the thousand, while the device fails.

pub mod check;
pub mod compare;
pub mod data;
pub mod device;
pub mod kernels;
pub mod models;
mod panic;
pub mod report;
pub mod selftest;
pub mod soak;
pub mod twin;

pub use check::{Check, Failure, Outcome};
pub use compare::{Tolerance, compare, equal};
pub use report::{Ending, Entry, Report};
pub use selftest::{Group, Selftest};
pub use soak::{Soak, SoakReport};
pub use twin::{Both, Side, Twin};
