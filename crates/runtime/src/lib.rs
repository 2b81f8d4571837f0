//! Recording, hazards, memory, transfers, submissions: what lies between a model and a device.
//!
//! A model records operations into a [`Recorder`] and never waits. The recorder finds the hazards between them,
//! takes transient memory from the [`MemoryPool`], carries per-step data into buffers, and submits. What comes back is
//! a [`Step`]: the one thing that can be waited for and read.
//!
//! Design choices:
//!
//! - *Hazards are found, not declared*: each operation says what it reads and writes, the tracker puts a barrier in
//!   front of an operation that conflicts with one since the last barrier, and nowhere else.
//! - *Transient memory is borrowed for a step* from heaps and returns when the step is done on the device, in buckets of
//!   powers of two, so that a steady step asks the device for nothing.
//! - *Per-step data lies in one buffer* ([`StepData`]), so that one write carries it, and what is recorded depends on
//!   shapes only: a step of the same shape submits the same [`Recording`] again.
//!
//! - *Three optimisations carry every step*: [`MemoryPool`], [`TransferQueue`] and [`CommandRing`]. Each has a plain form
//!   behind the same calls, can be switched between two steps, and is latched off when it fails ([`Optimizations`]).

mod command_ring;
mod fallback_log_level;
mod fallback_reason;
mod hazard;
mod heap_stack;
mod histogram;
#[cfg(test)]
mod logged;
mod master;
mod memory_budget;
mod memory_pool;
mod optimizations;
mod profile;
mod recorder;
mod recording;
mod runtime;
mod setting_error;
mod standing;
mod step;
mod step_data;
mod step_transfers;
mod transfer_queue;
mod verdict;

pub use command_ring::{CommandRing, CommandRingConfig, CommandRingStatistics, RingWork, Slot};
pub use fallback_log_level::FallbackLogLevel;
pub use fallback_reason::FallbackReason;
pub use hazard::HazardTracker;
pub use heap_stack::HeapStack;
pub use histogram::{Buckets, DEVICE_TIMES, Histogram, HistogramSnapshot};
pub use master::Master;
pub use memory_budget::{MemoryBudget, MemoryBudgetError, MemoryBudgetGauges, Owner, Reservation};
pub use memory_pool::{
    Completion, LeakReport, MemoryPool, MemoryPoolConfig, MemoryPoolStatistics, PoolBuffer,
};
pub use optimizations::{
    Feature, FeatureSettings, FeatureStatus, OptimizationStats, OptimizationTimes, Optimizations,
    StepStatistics,
};
pub use profile::{KernelTime, Profile};
pub use recorder::Recorder;
pub use recording::Recording;
pub use runtime::Runtime;
pub use setting_error::SettingError;
pub use standing::AutoState;
pub use step::Step;
pub use step_data::{Field, PlacedData, StepData};
pub use transfer_queue::{
    Direction, Download, Prefetch, Ticket, TransferError, TransferMetrics, TransferQueue,
    TransferQueueConfig, TransferQueueError, TransferResult,
};
pub use verdict::Verdict;
