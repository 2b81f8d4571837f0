//! GPUs through Vulkan 1.3.
//!
//! - The loader is opened at *run time*: a system without one has no Vulkan device, and the program still starts.
//! - Order is made with *timeline semaphores*, one per queue. An [`crate::Event`] is not a semaphore but a table on the
//!   host, from its values to points of those timelines (`event`); so it can be raised from anywhere, in any order, and
//!   its values can fail.
//! - What waits for a value that nobody has submitted yet is *held* on the host (`ledger`). So whatever has reached the
//!   GPU ends by itself: nothing hangs there, and dropping the device needs no help from the waiting program.
//! - There is no thread. Work is handed to the GPU in the call that makes it ready, and its end is noticed by whoever
//!   asks: memory that completed work held returns with the next call that looks at its queue.
//! - Memory is written *through a mapping* where the host sees all of it, else through a staging ring on the transfer
//!   queue (`staging`).
//!
//! Known gaps: one submission is one `vkQueueSubmit2`, and the hazards that the CPU device refuses while recording are
//! found by the validation layer only.

mod adapter;
mod buffer;
mod clock;
mod commands;
mod core;
mod device;
mod encoder;
mod event;
mod features;
mod footprint;
mod instance;
mod lane;
mod ledger;
mod memory;
mod messages;
mod pipeline;
mod pipeline_cache;
mod setup;
mod staging;
mod submission;
mod submit;
#[cfg(test)]
mod tests;

pub use adapter::{Adapter, AdapterKind, adapters};
pub use device::{VulkanDevice, VulkanOptions};
