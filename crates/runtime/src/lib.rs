//! Recording, hazards, workspaces: what lies between a model and a device.
//!
//! A model records operations into a [`Recorder`] and never waits. The recorder finds the hazards between them,
//! takes transient memory from the [`Workspace`], carries per-step data into buffers, and submits. What comes back is
//! a [`Step`]: the one thing that can be waited for and read.
//!
//! Design choices:
//!
//! - *Hazards are found, not declared*: each operation says what it reads and writes, the tracker puts a barrier in
//!   front of an operation that conflicts with one since the last barrier, and nowhere else.
//! - *Transient memory is borrowed for a step* and returns when the step is done on the device, in buckets of powers
//!   of two, so that a steady step asks the device for nothing.
//! - *Per-step data lives in buffers* ([`Recorder::input`]), so that what is recorded depends on shapes only.
//!
//! This is the plain form: one command buffer per step, inputs written before it is submitted, outputs read after it
//! has completed.

mod hazard;
mod heap_stack;
mod recorder;
mod step;
mod workspace;

pub use hazard::HazardTracker;
pub use heap_stack::HeapStack;
pub use recorder::Recorder;
pub use step::Step;
pub use workspace::{Workspace, WorkspaceStatistics};

use std::sync::Arc;

use bessemer_hal::{BufferDesc, Device, Result, Slice};
use bessemer_kernels::Catalog;

/// A device with its kernels and its transient memory. Shared by everything that runs on it.
#[derive(Debug)]
pub struct Runtime {
    catalog: Catalog,
    workspace: Arc<Workspace>,
}

impl Runtime {
    /// A runtime on `device`.
    pub fn new(device: Arc<dyn Device>) -> Arc<Self> {
        let workspace = Arc::new(Workspace::new(device.clone()));
        Arc::new(Self { catalog: Catalog::new(device), workspace })
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
    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }

    /// Starts recording a step.
    ///
    /// # Errors
    /// When the device cannot record.
    pub fn recorder(&self, label: &str) -> Result<Recorder<'_>> {
        Recorder::new(self, label)
    }

    /// A buffer for data that stays, such as weights and caches. Contents are undefined.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn allocate(&self, label: &str, bytes: u64) -> Result<Slice> {
        Ok(self.device().create_buffer(&BufferDesc::own(label, bytes))?.whole())
    }
}
