//! The CPU device: every kernel as a Rust function over a workgroup, threads as queues.

mod invocation;

pub use invocation::{CpuKernel, Invocation, Tile};
