//! The catalog: every kernel of this crate, made launchable on one device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bessemer_hal::cpu::CpuKernel;
use bessemer_hal::{Device, Dispatch, Pipeline, PipelineDesc, Result};

/// A kernel in all its forms.
#[derive(Debug)]
pub struct Kernel {
    /// Unique name, as reports and traces show it.
    pub name: &'static str,
    /// The CPU twin.
    pub cpu: CpuKernel,
}

/// An operation with its buffers: what a model records.
pub trait Op {
    /// The launch that carries it out on the catalog's device.
    ///
    /// # Errors
    /// When a buffer does not fit the shapes of the operation, or the pipeline cannot be built.
    fn dispatch(&self, catalog: &Catalog) -> Result<Dispatch>;
}

/// The pipelines of one device, built when first asked for.
#[derive(Debug)]
pub struct Catalog {
    device: Arc<dyn Device>,
    pipelines: Mutex<HashMap<&'static str, Pipeline>>,
}

impl Catalog {
    /// An empty catalog for `device`.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { device, pipelines: Mutex::default() }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Threads or compute units that share a launch: what splits are chosen by.
    pub fn workers(&self) -> usize {
        self.device.info().limits.workers.max(1) as usize
    }

    /// The pipeline of `kernel`.
    ///
    /// # Errors
    /// When the device cannot build it.
    pub fn pipeline(&self, kernel: &'static Kernel) -> Result<Pipeline> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(kernel.name) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.device.create_pipeline(&PipelineDesc { label: kernel.name, cpu: kernel.cpu })?;
        pipelines.insert(kernel.name, pipeline.clone());
        Ok(pipeline)
    }
}
