//! GPUs through Metal.
//!
//! - A command buffer of this crate is a *plan* (`plan`), encoded anew at every submission, because Metal's run once. It
//!   is checked while it is recorded, hazards included: buffers are not tracked by the system.
//! - Inside a command buffer, launches run concurrently with a memory barrier where one was recorded, and a fence orders
//!   one encoder after another. Between command buffers the order is a *timeline*, one shared event a queue.
//! - An [`crate::Event`] is a host event and a table of the submissions that will raise it (`event`, `ledger`); waits for
//!   what the GPU has are made on the GPU. So it can be raised from anywhere, in any order, and its values can fail.
//! - There is no thread. Metal's completion handlers turn status and error into values, and hand over what was held.
//! - Memory is shared with the host where GPU and host have one memory. Elsewhere it is private and filled by copies
//!   (`staging`).
//!
//! The files of plan, order, failures and families know no Metal and are tested on every system. `docs/metal.md` says what
//! is known of the others, and how.

#![cfg_attr(not(target_vendor = "apple"), allow(dead_code))]

mod event;
mod failure;
mod family;
mod ledger;
mod memory;
mod plan;

#[cfg(target_vendor = "apple")]
mod adapter;
#[cfg(target_vendor = "apple")]
mod archive;
#[cfg(target_vendor = "apple")]
mod buffer;
#[cfg(target_vendor = "apple")]
mod capture;
#[cfg(target_vendor = "apple")]
mod core;
#[cfg(target_vendor = "apple")]
mod cores;
#[cfg(target_vendor = "apple")]
mod device;
#[cfg(target_vendor = "apple")]
mod encode;
#[cfg(target_vendor = "apple")]
mod encoder;
#[cfg(target_vendor = "apple")]
mod native;
#[cfg(target_vendor = "apple")]
mod pipeline;
#[cfg(target_vendor = "apple")]
mod queue;
#[cfg(target_vendor = "apple")]
mod residency;
#[cfg(target_vendor = "apple")]
mod staging;

#[cfg(all(test, target_vendor = "apple"))]
mod tests;

#[cfg(target_vendor = "apple")]
pub use adapter::{Adapter, adapters};
#[cfg(target_vendor = "apple")]
pub use buffer::HostMemory;
#[cfg(target_vendor = "apple")]
pub use device::{MetalDevice, MetalOptions};
