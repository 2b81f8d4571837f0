//! The Vulkan device.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use super::adapter::{self, AdapterKind, Physical};
use super::buffer::{self, VulkanBuffer};
use super::commands::CommandList;
use super::core::Core;
use super::encoder::VulkanEncoder;
use super::event::VulkanEvent;
use super::instance::Instance;
use super::ledger::Entry;
use super::setup;
use super::staging::Staging;
use super::submission::Task;
use super::{lane, memory, pipeline};
use crate::cpu::check_length;
use crate::{
    Backend, Buffer, BufferDesc, Device, DeviceError, DeviceInfo, Encoder, Event, Heap, HeapDesc, Limits,
    Pipeline, PipelineDesc, QueueKind, Result, Slice, Submission, Submit,
};

/// Reads longer than this go through the GPU where the host has no cache for its memory, because the bus answers such a
/// read piece by piece: on an H200, 256 bytes took 5 µs and 4 KiB 167 µs, and through the GPU either takes 13 µs.
const UNCACHED_READ: usize = 256;

/// How to set up a [`VulkanDevice`].
#[derive(Clone, Debug, Default)]
pub struct VulkanOptions {
    /// The adapter by [`super::Adapter::index`]; by default the best that is no software.
    pub adapter: Option<usize>,
    /// Have the validation layer watch every call, synchronisation included, and name every object for it.
    pub validation: bool,
    /// A file that keeps compiled pipelines; made when it is missing, ignored when it is of another driver.
    pub pipeline_cache: Option<PathBuf>,
    /// Bytes of heaps and buffers at most; by default what the driver has free.
    pub memory_budget: Option<u64>,
    /// Do not map device memory, so that every read and write is a copy by the GPU.
    pub prefer_staging: bool,
}

/// A GPU through Vulkan.
///
/// Dropping it waits for what the GPU has, and fails what has not started with [`DeviceError::Lost`].
///
/// Where it is more exact than [`Device`] asks:
///
/// - Memory that completed work held returns with the next call that looks at its queue: a submission, a wait, a poll, a
///   read, a write, or [`Device::allocated`].
/// - Events of other devices are refused. Its own may be raised by any device.
/// - [`Limits::alignment`] is of buffers in heaps. Bindings may be aligned to `minStorageBufferOffsetAlignment`, which is
///   no larger.
/// - Times are the GPU's. Where a queue has no timestamps they are the host's: from handing over to finding the end.
pub struct VulkanDevice {
    info: DeviceInfo,
    pub(super) core: Arc<Core>,
    staging: Staging,
}

impl VulkanDevice {
    /// Opens a GPU.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when there is no loader, driver or such adapter, or when the GPU lacks what kernels
    /// need, with its name.
    pub fn new(options: &VulkanOptions) -> Result<Arc<Self>> {
        let instance = Instance::new(options.validation)?;
        let physical = adapter::choose(&instance, options.adapter)?;
        Self::with(instance, physical, options)
    }

    /// A device of an adapter that was chosen.
    pub(super) fn with(instance: Instance, physical: Physical, options: &VulkanOptions) -> Result<Arc<Self>> {
        let core = Arc::new(setup::core(instance, physical, options)?);
        let info = info(&core, options);
        tracing::debug!("opened GPU '{}': {}", info.name, info.features.join(", "));
        Ok(Arc::new(Self { info, staging: Staging::new(&core), core }))
    }

    /// What the validation layer has said since the device was opened; empty without validation.
    pub fn validation_messages(&self) -> Vec<String> {
        self.core.instance.messages.all()
    }

    /// Writes compiled pipelines to the file of [`VulkanOptions::pipeline_cache`] now. It is done by itself before the
    /// first submission after a pipeline was made, and when the device is dropped.
    pub fn save_pipeline_cache(&self) {
        self.core.cache.save(&self.core.device);
    }
}

fn info(core: &Core, options: &VulkanOptions) -> DeviceInfo {
    let (physical, plan) = (&core.physical, &core.plan);
    let limits = &physical.limits;
    let max_buffer_size = physical
        .v13
        .max_buffer_size
        .min(physical.max_allocation)
        .min(u64::from(limits.max_storage_buffer_range))
        .min(plan.budget);
    DeviceInfo {
        name: physical.adapter.name.clone(),
        backend: Backend::Vulkan,
        limits: Limits {
            memory_budget: plan.budget,
            max_buffer_size,
            alignment: plan.alignment,
            unified_memory: memory::unified(physical, plan),
            mapped: plan.device.mapped,
            resubmit: true,
            workers: physical.workers,
            gpu: Some(physical.gpu_limits()),
        },
        features: features(core, physical, options),
    }
}

/// What is in use, for reports.
fn features(core: &Core, physical: &Physical, options: &VulkanOptions) -> Vec<String> {
    let adapter = &physical.adapter;
    let mut all = vec![
        format!("Vulkan {}", adapter.api),
        format!("driver {}", adapter.driver),
        format!("{} GPU", adapter.kind),
        format!("subgroups of {} to {}", physical.v13.min_subgroup_size, physical.v13.max_subgroup_size),
    ];
    let [compute, transfer, _] = &core.lanes;
    let mapped = core.plan.device.mapped;
    let discrete = adapter.kind == AdapterKind::Discrete;
    for (has, name) in [
        (physical.cooperative_matrix, "cooperative matrices"),
        (physical.gpu_limits().int8_dot, "8-bit dot products"),
        (core.push.is_some(), "push descriptors"),
        (compute.family != transfer.family, "transfer queue family"),
        (mapped && discrete, "resizable BAR"),
        (mapped && !discrete, "mapped memory"),
        (!mapped, "staging"),
        (core.clock.is_some(), "timestamps"),
        (options.validation, "validation"),
    ] {
        if has {
            all.push(name.into());
        }
    }
    all
}

impl Device for VulkanDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocated(&self) -> u64 {
        for lane in [lane::COMPUTE, lane::TRANSFER] {
            self.core.ledger.reap(&self.core, lane);
        }
        self.core.plan.allocated()
    }

    fn create_heap(&self, desc: &HeapDesc<'_>) -> Result<Heap> {
        buffer::create_heap(&self.core, desc)
    }

    fn create_buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer> {
        buffer::create_buffer(&self.core, desc)
    }

    fn create_pipeline(&self, desc: &PipelineDesc) -> Result<Pipeline> {
        pipeline::create(&self.core, desc)
    }

    fn create_event(&self, initial: u64) -> Result<Event> {
        self.core.alive()?;
        Ok(VulkanEvent::event(&self.core, initial))
    }

    fn create_encoder(&self, label: &str) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(VulkanEncoder::new(&self.core, label)?))
    }

    fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission> {
        let core = &self.core;
        core.alive()?;
        let list = CommandList::of(submit.commands, core, queue)?;
        let commands = list.commands_for(queue)?;
        let own = |events: &[(Event, u64)]| {
            let own = |(event, value): &(Event, u64)| {
                VulkanEvent::of(event, core).map(|event| (event, *value)).ok_or_else(|| {
                    let label = submit.commands.label();
                    DeviceError::Usage(format!("submission '{label}': an event is of another device"))
                })
            };
            events.iter().map(own).collect::<Result<Vec<_>>>()
        };
        let (wait, signal) = (own(submit.wait)?, own(submit.signal)?);
        core.cache.save(&core.device);
        let lane = lane::index(queue);
        let task = Arc::new(Task::new(core, lane));
        core.ledger.reap(core, lane);
        core.ledger.submit(core, Entry { task: task.clone(), list, commands, wait, signal, slot: None })?;
        Ok(Submission { state: task })
    }

    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        check_length(slice, data.len())?;
        let buffer = VulkanBuffer::of(slice, self.core.id)?;
        let copy = || match buffer.host(slice) {
            Some(to) => {
                // SAFETY: the slice lies inside its buffer, which `slice` keeps alive, has the length of `data`, and is
                // used by nobody else during the call; `data` is host memory, which no buffer overlaps.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
                Ok(())
            }
            None => self.staging.write(buffer.raw, slice.offset, data),
        };
        self.core.ledger.host(&self.core, slice, buffer.extent(slice), true, copy)
    }

    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        check_length(slice, data.len())?;
        let buffer = VulkanBuffer::of(slice, self.core.id)?;
        let near = |len: usize| buffer.cached() || len <= UNCACHED_READ;
        let copy = || match buffer.host(slice).filter(|_| near(data.len())) {
            Some(from) => {
                // SAFETY: as in `write`, with the directions exchanged.
                unsafe { std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len()) };
                Ok(())
            }
            None => self.staging.read(buffer.raw, slice.offset, data),
        };
        self.core.ledger.host(&self.core, slice, buffer.extent(slice), false, copy)
    }
}

impl std::fmt::Debug for VulkanDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VulkanDevice({})", self.info.name)
    }
}

impl Drop for VulkanDevice {
    fn drop(&mut self) {
        self.core.ledger.close(&self.core);
        self.core.cache.save(&self.core.device);
    }
}
