//! Recording, hazards, workspaces: what lies between a model and a device.
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
//! This is the plain form: one command buffer per step, inputs written before it is submitted, outputs read after it
//! has completed.

mod hazard;
mod heap_stack;
mod memory_budget;
mod memory_pool;
mod profile;
mod recorder;
mod recording;
mod step;
mod step_data;
mod transfer_queue;
mod workspace;

pub use hazard::HazardTracker;
pub use heap_stack::HeapStack;
pub use memory_budget::{MemoryBudget, MemoryBudgetError, MemoryBudgetGauges, Owner, Reservation};
pub use memory_pool::{
    Completion, LeakReport, MemoryPool, MemoryPoolConfig, MemoryPoolConfigError, MemoryPoolStatistics,
    PoolBuffer,
};
pub use profile::{KernelTime, Profile};
pub use recorder::Recorder;
pub use recording::Recording;
pub use step::Step;
pub use step_data::{Field, PlacedData, StepData};
pub use transfer_queue::{
    Download, Prefetch, Ticket, TransferConfigError, TransferError, TransferMetrics, TransferQueue,
    TransferQueueConfig, TransferQueueError, TransferResult,
};
pub use workspace::{Workspace, WorkspaceStatistics};

use std::sync::Arc;

use bessemer_hal::{BufferDesc, Device, QueueKind, Result, Slice, Submit};
use bessemer_kernels::Catalog;

/// A device with its kernels and its transient memory. Shared by everything that runs on it.
#[derive(Debug)]
pub struct Runtime {
    catalog: Catalog,
    memory_pool: Arc<MemoryPool>,
    profile: Option<Arc<Profile>>,
}

impl Runtime {
    /// A runtime on `device`.
    pub fn new(device: Arc<dyn Device>) -> Arc<Self> {
        Self::with_profile(device, None)
    }

    /// A runtime whose steps are profiled, when there is a profile.
    pub fn with_profile(device: Arc<dyn Device>, profile: Option<Arc<Profile>>) -> Arc<Self> {
        let memory_pool = MemoryPool::with_defaults(device.clone());
        Self::with_memory_pool(device, profile, memory_pool)
    }

    /// A runtime with a memory pool of its own settings, which is on the same device.
    pub fn with_memory_pool(
        device: Arc<dyn Device>,
        profile: Option<Arc<Profile>>,
        memory_pool: MemoryPool,
    ) -> Arc<Self> {
        Arc::new(Self { catalog: Catalog::new(device), memory_pool: Arc::new(memory_pool), profile })
    }

    /// Where its steps tell what their kernels took.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        self.catalog.device()
    }

    /// Its kernels.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Its transient memory.
    pub fn memory_pool(&self) -> &Arc<MemoryPool> {
        &self.memory_pool
    }

    /// Starts recording a step.
    ///
    /// # Errors
    /// When the device cannot record.
    pub fn recorder(&self, label: &str) -> Result<Recorder<'_>> {
        Recorder::new(self, label)
    }

    /// Submits a recording to the compute queue.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn submit(&self, recording: &Arc<Recording>) -> Result<Step> {
        let mut submissions = Vec::with_capacity(recording.parts.len());
        let mut refused = Ok(());
        for part in &recording.parts {
            match self.device().submit(QueueKind::Compute, Submit::new(&part.commands)) {
                Ok(submission) => submissions.push(submission),
                Err(error) => {
                    refused = Err(error);
                    break;
                }
            }
        }
        // The parts before a refused one run all the same.
        recording.borrowed.used_by(&submissions);
        refused?;
        Ok(Step::new(self.device().clone(), submissions, recording.clone()))
    }

    /// Adds a completed step to the profile, if there is one.
    pub fn tell_profile(&self, step: &Step) {
        if let Some(profile) = self.profile() {
            step.tell(profile);
        }
    }

    /// A buffer for data that stays, such as weights and caches. Contents are undefined.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn allocate(&self, label: &str, bytes: u64) -> Result<Slice> {
        Ok(self.device().create_buffer(&BufferDesc::own(label, bytes))?.whole())
    }
}
