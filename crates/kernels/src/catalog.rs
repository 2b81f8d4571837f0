//! The catalog: every kernel of this crate, made launchable on one device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bessemer_hal::cpu::CpuKernel;
use bessemer_hal::{Code, Device, DeviceError, Dispatch, GpuLimits, Pipeline, PipelineDesc, Result, Slice};

use crate::shaders;

/// A kernel of the CPU device.
#[derive(Debug)]
pub struct Kernel {
    /// Unique name, as reports and traces show it.
    pub name: &'static str,
    /// The CPU twin.
    pub cpu: CpuKernel,
}

/// An operation with its buffers: what a model records. It has a form for devices that run functions and a form for
/// GPUs; the forms may cut the work into different launches, and compute the same.
pub trait Op {
    /// The launch that carries it out on the CPU device.
    ///
    /// # Errors
    /// When a buffer does not fit the shapes of the operation, or the pipeline cannot be built.
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch>;

    /// The launches that carry it out on a GPU, in order. `scratch` has at least [`Op::gpu_scratch`] bytes, which only
    /// these launches use; `None` when that is 0.
    ///
    /// # Errors
    /// As [`Op::cpu`].
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>>;

    /// Bytes that its launches on a GPU pass among themselves.
    fn gpu_scratch(&self, limits: &GpuLimits) -> usize {
        let _ = limits;
        0
    }
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

    /// What GPU kernels are selected by; `None` on a device that runs the CPU form of operations.
    pub fn gpu(&self) -> Option<&GpuLimits> {
        self.device.info().limits.gpu.as_ref()
    }

    /// Threads or compute units that share a launch: what splits are chosen by.
    pub fn workers(&self) -> usize {
        self.device.info().limits.workers.max(1) as usize
    }

    /// The launches of `op` on this device, in order; `scratch` gives memory that only they use, by size in bytes.
    ///
    /// # Errors
    /// Those of [`Op::cpu`], [`Op::gpu`] and `scratch`.
    pub fn launches(
        &self,
        op: &impl Op,
        scratch: impl FnOnce(usize) -> Result<Slice>,
    ) -> Result<Vec<Dispatch>> {
        match self.gpu() {
            None => Ok(vec![op.cpu(self)?]),
            Some(limits) => match op.gpu_scratch(limits) {
                0 => op.gpu(self, limits, None),
                bytes => op.gpu(self, limits, Some(&scratch(bytes)?)),
            },
        }
    }

    /// The pipeline of a CPU kernel.
    ///
    /// # Errors
    /// When the device cannot build it.
    pub fn pipeline(&self, kernel: &'static Kernel) -> Result<Pipeline> {
        self.build(kernel.name, Code::Cpu(kernel.cpu))
    }

    /// The pipeline of the shader called `name`.
    ///
    /// # Errors
    /// When there is none, or the device cannot build it.
    pub fn shader(&self, name: &str) -> Result<Pipeline> {
        let shader = shaders::find(name).ok_or_else(|| DeviceError::Pipeline {
            label: name.into(),
            reason: "no shader of this name was compiled into the program".into(),
        })?;
        self.build(shader.name, Code::Gpu(shader))
    }

    fn build(&self, label: &'static str, code: Code) -> Result<Pipeline> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(label) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.device.create_pipeline(&PipelineDesc { label, code })?;
        pipelines.insert(label, pipeline.clone());
        Ok(pipeline)
    }
}
