//! The CPU device: every kernel as a Rust function over a workgroup, threads as queues.
//!
//! - A command buffer is a flat *program* (`program`), checked while it is recorded (`encoder`) and therefore run
//!   without checks.
//! - The compute queue is a *team* of threads that take workgroups by ticket (`team`); the transfer queue is one
//!   thread (`queue`). Both keep the order of submission.
//! - Memory is mapped from the system under a budget (`arena`, `memory`). Which bytes pending work uses is known
//!   (`in_use`), so that the host and the other queue cannot race with it.
//!
//! Known gap: threads are not pinned, and memory is not placed by NUMA node.

mod arena;
mod device;
mod encoder;
pub(crate) mod extent;
mod in_use;
mod invocation;
mod memory;
mod program;
mod queue;
mod system;
mod team;

pub use device::{CpuDevice, CpuOptions};
pub use invocation::{CpuKernel, Invocation, Tile};
pub use program::Counts;

pub(crate) use arena::Backing;
pub(crate) use device::{check_length, limits};
pub(crate) use encoder::{CpuPipeline, ListEncoder};
pub(crate) use extent::Extent;
pub(crate) use memory::Memory;
pub(crate) use program::CommandList;
pub(crate) use system::memory as system_memory;
