//! Every kernel: what it computes, for which shapes, on which device.
//!
//! One folder per operation. In it: the operation as a model names it (an [`Op`]: shapes, buffers, how the launches are
//! split), its CPU twin, its WGSL form, and the list of the variants that are compiled from it (`shaders.rs`).
//!
//! Design choices:
//!
//! - The CPU twin is the *reference* for every other device, and is fast all the same: instruction sets are detected
//!   at run time, the plain form stays beside them as the test's yardstick.
//! - Kernels are *batch invariant*: the bits of one row's result never depend on which other rows are in the launch,
//!   nor on how the launch is split. So greedy output does not depend on batching, chunking or preemption.
//! - What changes per step (ids, positions, block tables, lengths, sampling parameters) is read from *buffers*;
//!   parameters hold shapes only.

pub mod attention;
mod bounds;
pub mod catalog;
pub mod ceiling;
pub mod feed;
pub mod gather;
pub mod isa;
pub mod kv;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod router;
pub mod sampling;
pub mod shaders;
mod simd;
pub mod view;

#[cfg(test)]
mod golden;

pub use catalog::{Catalog, Kernel, Op};
pub use isa::Isa;
pub use kv::KvType;
pub use view::{Activations, QuantisedRows, View};
