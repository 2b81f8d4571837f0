//! The memory pool: the transient buffers of steps, placed in heaps that were reserved before.
//!
//! A device allocation costs a fraction of a millisecond, and a step needs some dozens of buffers. The pool reserves
//! `num_heaps` heaps of `heap_size_mb`, one after the other as they are needed, places buffers in them, and takes them
//! back when the *device* is done with them. Off, every buffer is a device allocation that is freed at its end: the
//! plain path, with the same calls.
//!
//! Design choices:
//!
//! - *Buckets* are powers of two, from 256 bytes or the device's alignment on. A buffer that came back keeps its place
//!   and stays as it is, so that a steady step gets the very same buffers and creates nothing on the device.
//! - Each heap is a *buddy* allocator: sizes are powers of two anyway, so it wastes nothing beyond the buckets, aligns
//!   every block by itself, unites neighbours at once, and fits on a page. The crate `offset-allocator` (0.2.0, its only
//!   release since 2024) would bring bins for sizes between the powers of two, for which there is no use here, wants
//!   alignment by hand, takes 32-bit sizes and indices, and says in an opaque handle what the books here want to see.
//! - *Grow, then evict*: a request that finds no idle buffer and no free block first gets another heap, up to
//!   `num_heaps`; only then are idle buffers evicted, those of the range that was unused for the longest time, and none
//!   unless that makes room. So shapes of steps that take turns do not push each other out.
//! - *Return is asked for, never guessed*: a buffer that is dropped while its submission runs waits with a
//!   [`Completion`] and becomes free when the device says so. Nothing waits for that; it is asked when memory is needed.
//!   As many returns wait as submissions are under way, which the device bounds.
//! - *Fallback*: too large, or exhausted, means a direct allocation that is freed when it comes back, counted and logged.
//!   When the device has no memory for it, the heaps that nobody uses go first. Nothing is latched here except a heap that
//!   the device refused: it is not asked for again until the settings change or the pool is switched on again.
//! - *Decide under the lock, act outside*: the books (`Ledger`) never call the device and are tested without one; what a
//!   decision makes superfluous is dropped after the lock. The one device call under a lock is the reservation of a heap,
//!   under a lock of its own (see `Inner::grow`).
//!
//! The words of the design documents: a *heap slot* is what `acquire_heap` and `release_heap` handed out. A slot is
//! acquired here when a buffer in it comes into use and released with the last one: `active_heaps` counts the acquired
//! slots, `available` the others. `allocate_buffer` is [`MemoryPool::acquire`], `get_statistics` is
//! [`MemoryPool::statistics`].
//!
//! Known gaps: a direct allocation is not kept for the next request. A slice that outlives its [`PoolBuffer`] keeps the
//! device memory of a direct allocation or of a heap alive although its share of the budget has returned.

mod buddy;
mod completion;
mod config;
mod exhaustion_log;
mod heap;
mod ledger;
#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod model_check;
mod pool;
mod pool_buffer;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod return_tests;
mod statistics;

/// The lock of the pool. The model check compiles the pool with another one, whose turns it decides.
mod sync {
    pub(super) use std::sync::Mutex;
}

pub use completion::Completion;
pub use config::MemoryPoolConfig;
pub use pool::MemoryPool;
pub use pool_buffer::PoolBuffer;
pub use statistics::{LeakReport, MemoryPoolStatistics};
