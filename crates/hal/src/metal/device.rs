//! The Metal device.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use objc2::rc::autoreleasepool;
use objc2_metal::{MTLComputePipelineState, MTLDevice};

use super::buffer::{self, HostMemory, MetalBuffer};
use super::core::{self, Core};
use super::encoder::{MAX_GROUPS, MetalCommands, MetalEncoder};
use super::event::MetalEvent;
use super::ledger::Entry;
use super::staging::Staging;
use super::{adapter, pipeline};
use crate::cpu::check_length;
use crate::{
    Backend, Buffer, BufferDesc, Device, DeviceError, DeviceInfo, Encoder, Event, GpuLimits, Heap, HeapDesc,
    Limits, Pipeline, PipelineDesc, QueueKind, Result, Slice, Submission, Submit,
};

/// How to set up a [`MetalDevice`].
#[derive(Clone, Debug)]
pub struct MetalOptions {
    /// The adapter by [`super::Adapter::index`]; by default the best.
    pub adapter: Option<usize>,
    /// Bytes of heaps and buffers at most; by default, and never more than, what the system recommends less a reserve.
    pub memory_budget: Option<u64>,
    /// A file that keeps compiled pipelines; made when it is missing, ignored with a note when it cannot be read.
    pub pipeline_cache: Option<PathBuf>,
    /// Memory that the host does not see even where it could, so that every read and write is a copy by the GPU.
    pub private_memory: bool,
    /// Launches and copies of one command buffer of Metal at most; longer recordings become several.
    pub commands_per_buffer: usize,
    /// Bytes that one command buffer of Metal binds at most.
    pub bytes_per_buffer: u64,
    /// Where the first submissions are captured, a path that ends in `.gputrace`; by default what the environment variable
    /// `BESSEMER_METAL_CAPTURE` holds. The process must be started with `METAL_CAPTURE_ENABLED=1`.
    pub capture: Option<PathBuf>,
    /// How many submissions are captured.
    pub capture_submissions: u32,
}

impl Default for MetalOptions {
    fn default() -> Self {
        Self {
            adapter: None,
            memory_budget: None,
            pipeline_cache: None,
            private_memory: false,
            // Some layers of a long prompt, or all of a step with one row: fractions of a second.
            commands_per_buffer: 256,
            bytes_per_buffer: 16 << 30,
            capture: None,
            capture_submissions: 32,
        }
    }
}

/// A GPU through Metal.
///
/// Dropping it fails what has not started with [`DeviceError::Lost`]. What the GPU has finishes by itself and holds
/// everything it uses; dropping does not wait for it.
///
/// Where it is more exact than [`Device`] asks:
///
/// - Events of other devices are refused. Its own may be raised by any device.
/// - [`Limits::alignment`] is of buffers in heaps. Bindings are aligned to 16 bytes.
/// - Times are the GPU's, of the clock that `mach_absolute_time` counts.
/// - Hazards are looked for while recording, as on the CPU device.
pub struct MetalDevice {
    info: DeviceInfo,
    core: Arc<Core>,
    staging: Staging,
}

impl MetalDevice {
    /// Opens a GPU.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when there is no such GPU, or when it or the system is too old for the kernels, with
    /// its name.
    pub fn new(options: &MetalOptions) -> Result<Arc<Self>> {
        let (raw, facts) = adapter::choose(options.adapter)?;
        let core = Core::new(raw, facts, options)?;
        let info = info(&core);
        tracing::debug!("opened GPU '{}': {}", info.name, info.features.join(", "));
        Ok(Arc::new(Self { info, core, staging: Staging::default() }))
    }

    /// A buffer over memory of the host, without a copy: such as weights in a mapped file, where the GPU reads them as they
    /// lie. It is read only, begins at a page of the system (16 KiB), and does not count as [`Device::allocated`]. The
    /// memory lives at least as long as the buffer and the submissions that use it.
    ///
    /// # Errors
    /// [`DeviceError::Usage`] when the memory does not begin at a page, [`DeviceError::OutOfMemory`] when the system
    /// refuses.
    pub fn wrap(&self, label: &str, memory: Arc<HostMemory>) -> Result<Buffer> {
        buffer::wrap(&self.core, label, memory, core::page_size())
    }

    /// Writes compiled pipelines to the file of [`MetalOptions::pipeline_cache`] now. It is done by itself some seconds
    /// after the last pipeline was made, and when the device is dropped.
    pub fn save_pipeline_cache(&self) {
        if let Some(archive) = &self.core.archive {
            archive.save();
        }
    }
}

fn info(core: &Core) -> DeviceInfo {
    let (facts, device) = (&core.facts, &core.device);
    let width = core.copy_bytes.get().map_or(32, |probe| probe.raw.threadExecutionWidth() as u32);
    let threads = device.maxThreadsPerThreadgroup().width;
    let private = core.layout.private;
    let mut features = facts.features();
    features.push(if private { "private memory" } else { "shared memory" }.into());
    if core.residency.is_some() {
        features.push("residency set".into());
    }
    DeviceInfo {
        name: facts.name.clone(),
        backend: Backend::Metal,
        limits: Limits {
            memory_budget: core.meter.budget(),
            max_buffer_size: (device.maxBufferLength() as u64).min(core.meter.budget()),
            alignment: core.layout.alignment,
            unified_memory: facts.unified && !private,
            mapped: !private,
            resubmit: true,
            workers: facts.compute_units(),
            gpu: Some(GpuLimits {
                min_subgroup: width,
                max_subgroup: width,
                workgroup_memory: u32::try_from(device.maxThreadgroupMemoryLength()).unwrap_or(u32::MAX),
                workgroup_threads: u32::try_from(threads).unwrap_or(u32::MAX),
                max_groups: [MAX_GROUPS; 3],
                cooperative_matrix: facts.simdgroup_matrix(),
                int8_dot: false,
                software: false,
            }),
        },
        features,
    }
}

impl Device for MetalDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocated(&self) -> u64 {
        self.core.meter.allocated()
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
        self.core.ledger.alive()?;
        Ok(MetalEvent::event(self.core.id, self.core.pump_handle(), initial))
    }

    fn create_encoder(&self, label: &str) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(MetalEncoder::new(&self.core, label)?))
    }

    fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission> {
        let core = &self.core;
        let plan = MetalCommands::of(submit.commands, core, queue)?;
        let own = |events: &[(Event, u64)]| {
            let own = |(event, value): &(Event, u64)| {
                MetalEvent::of(event, core.id).map(|event| (event, *value)).ok_or_else(|| {
                    let label = submit.commands.label();
                    DeviceError::Usage(format!("submission '{label}': an event is of another device"))
                })
            };
            events.iter().map(own).collect::<Result<Vec<_>>>()
        };
        let entry = Entry::new(plan, own(submit.wait)?, own(submit.signal)?);
        let state = entry.state.clone();
        if let Some(archive) = &core.archive {
            archive.save_when_quiet();
        }
        autoreleasepool(|_| core.ledger.submit(&**core, core::lane(queue), entry))?;
        Ok(state.handle())
    }

    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        check_length(slice, data.len())?;
        let buffer = MetalBuffer::of(slice, self.core.id)?;
        if buffer.read_only() {
            let label = slice.buffer.label();
            return Err(DeviceError::Usage(format!(
                "write to buffer '{label}': it wraps memory of the host that is only read"
            )));
        }
        let copy = || match buffer.host(slice) {
            _ if data.is_empty() => Ok(()),
            Some(to) => {
                // SAFETY: the slice lies inside its buffer, which `slice` keeps alive, has the length of `data`, and is
                // used by nobody else during the call; `data` is host memory, which no buffer that may be written
                // overlaps.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
                Ok(())
            }
            None => self.staging.write(&self.core, buffer.raw(&self.core.filler.0), slice.offset, data),
        };
        self.core.ledger.host(slice, buffer.extent(slice), true, copy)
    }

    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        check_length(slice, data.len())?;
        let buffer = MetalBuffer::of(slice, self.core.id)?;
        let copy = || match buffer.host(slice) {
            _ if data.is_empty() => Ok(()),
            Some(from) => {
                // SAFETY: as in `write`, with the directions exchanged; a unique borrow of `data` overlaps no buffer that
                // wraps memory of the host.
                unsafe { std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len()) };
                Ok(())
            }
            None => self.staging.read(&self.core, buffer.raw(&self.core.filler.0), slice.offset, data),
        };
        self.core.ledger.host(slice, buffer.extent(slice), false, copy)
    }
}

impl std::fmt::Debug for MetalDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MetalDevice({})", self.info.name)
    }
}

impl Drop for MetalDevice {
    fn drop(&mut self) {
        self.core.ledger.close("it was dropped before the submission started");
        self.save_pipeline_cache();
    }
}
