//! What every object of a device holds on to: the logical device, its queues, and what is under way.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use ash::vk;

use super::adapter::Physical;
use super::clock::Clock;
use super::commands::Recording;
use super::instance::Instance;
use super::lane::Lane;
use super::ledger::Ledger;
use super::memory::MemoryPlan;
use super::pipeline::Layout;
use super::pipeline_cache::PipelineCache;
use crate::{DeviceError, Result};

/// How long a wait for the GPU spins before the thread sleeps: waking costs more than a short kernel.
const SPIN: Duration = Duration::from_micros(20);

/// The logical device. Held by everything made of it, and destroyed with the last.
pub(crate) struct Core {
    /// Tells the device's objects from those of other devices.
    pub(crate) id: u64,
    pub(crate) physical: Physical,
    pub(crate) device: ash::Device,
    pub(crate) push: Option<ash::khr::push_descriptor::Device>,
    pub(crate) debug: Option<ash::ext::debug_utils::Device>,
    pub(crate) plan: MemoryPlan,
    /// Compute, transfer, and the copies of reads and writes.
    pub(crate) lanes: [Lane; 3],
    /// Families that buffers are shared between; one entry when there is one.
    pub(crate) families: Vec<u32>,
    pub(crate) clock: Option<Clock>,
    pub(crate) ledger: Ledger,
    pub(crate) cache: PipelineCache,
    pub(crate) layouts: Mutex<HashMap<(u32, u32), Layout>>,
    /// Command pools that are free, by family.
    pub(crate) free_recordings: Mutex<Vec<Recording>>,
    /// Bound where a slice is empty, because a descriptor cannot be.
    pub(crate) filler: OnceLock<(vk::Buffer, vk::DeviceMemory)>,
    lost: OnceLock<String>,
    begin: Instant,
    /// Outlives everything above.
    pub(crate) instance: Instance,
}

/// The parts that a [`Core`] is put together from.
pub(crate) struct Parts {
    pub(crate) instance: Instance,
    pub(crate) physical: Physical,
    pub(crate) device: ash::Device,
    pub(crate) push: Option<ash::khr::push_descriptor::Device>,
    pub(crate) debug: Option<ash::ext::debug_utils::Device>,
    pub(crate) plan: MemoryPlan,
    pub(crate) lanes: [Lane; 3],
    pub(crate) families: Vec<u32>,
    pub(crate) clock: Option<Clock>,
    pub(crate) cache: PipelineCache,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Parts { instance, physical, device, push, debug, plan, lanes, families, clock, cache } = parts;
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            physical,
            device,
            push,
            debug,
            plan,
            lanes,
            families,
            clock,
            ledger: Ledger::default(),
            cache,
            layouts: Mutex::default(),
            free_recordings: Mutex::default(),
            filler: OnceLock::new(),
            lost: OnceLock::new(),
            begin: Instant::now(),
            instance,
        }
    }

    /// # Errors
    /// [`DeviceError::Lost`] once the device is gone.
    pub(crate) fn alive(&self) -> Result<()> {
        self.lost.get().map_or(Ok(()), |reason| Err(DeviceError::Lost(reason.clone())))
    }

    /// From now on the device is gone.
    pub(crate) fn lose(&self, reason: &str) -> DeviceError {
        let reason = self.lost.get_or_init(|| {
            tracing::error!("GPU '{}' is lost: {reason}", self.physical.adapter.name);
            reason.to_owned()
        });
        DeviceError::Lost(reason.clone())
    }

    /// A result of Vulkan as an error of this crate; `what` was being done.
    pub(crate) fn error(&self, what: &str, result: vk::Result) -> DeviceError {
        match result {
            vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
            | vk::Result::ERROR_OUT_OF_HOST_MEMORY
            | vk::Result::ERROR_OUT_OF_POOL_MEMORY => DeviceError::OutOfMemory {
                what: what.to_owned(),
                requested: 0,
                available: self.plan.left(self),
            },
            _ => self.lose(&format!("{what}: {result}")),
        }
    }

    /// Asks the GPU how far a queue has come.
    pub(crate) fn refresh(&self, lane: usize) -> Result<u64> {
        let lane = &self.lanes[lane];
        // SAFETY: the semaphore lives as long as the device.
        let value = unsafe { self.device.get_semaphore_counter_value(lane.timeline) };
        let value = value.map_err(|result| self.error("asking a queue", result))?;
        // A lost device may report anything, the largest value above all.
        self.alive()?;
        Ok(lane.completed.fetch_max(value, Ordering::AcqRel).max(value))
    }

    /// Waits until a queue has come to `value`; `false` when it has not within `timeout`.
    pub(crate) fn wait_for(&self, lane: usize, value: u64, timeout: Duration) -> Result<bool> {
        let begin = Instant::now();
        let spin = SPIN.min(timeout);
        loop {
            if self.refresh(lane)? >= value {
                return Ok(true);
            }
            if begin.elapsed() >= spin {
                break;
            }
            (0..32).for_each(|_| std::hint::spin_loop());
        }
        let left = timeout.saturating_sub(begin.elapsed());
        let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        let (semaphores, values) = ([self.lanes[lane].timeline], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore lives as long as the device.
        match unsafe { self.device.wait_semaphores(&info, nanos) } {
            Ok(()) => self.refresh(lane).map(|now| now >= value),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => Err(self.error("waiting for the GPU", result)),
        }
    }

    /// The host's clock, for queues without timestamps.
    pub(crate) fn host_nanos(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// Gives an object its name in what the validation layer says.
    pub(crate) fn name(&self, handle: impl vk::Handle, name: &str) {
        let Some(debug) = &self.debug else { return };
        let Ok(name) = CString::new(name.replace('\0', " ")) else { return };
        let info = vk::DebugUtilsObjectNameInfoEXT::default().object_handle(handle).object_name(&name);
        // SAFETY: the handle is of this device, and nobody else names it at this moment since it is new.
        let named = unsafe { debug.set_debug_utils_object_name(&info) };
        if let Err(error) = named {
            tracing::debug!("an object could not be named: {error}");
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: nobody holds the device any more, so nothing of it is in use once it is idle. Everything destroyed here
        // was made of it and is destroyed once.
        unsafe {
            if self.device.device_wait_idle().is_err() {
                tracing::debug!("the device was lost before it was destroyed");
            }
            for recording in crate::monitor::lock(&self.free_recordings).drain(..) {
                self.device.destroy_command_pool(recording.pool, None);
            }
            for (_, layout) in crate::monitor::lock(&self.layouts).drain() {
                self.device.destroy_pipeline_layout(layout.pipeline, None);
                self.device.destroy_descriptor_set_layout(layout.set, None);
            }
            if let Some((buffer, memory)) = self.filler.take() {
                self.device.destroy_buffer(buffer, None);
                self.device.free_memory(memory, None);
            }
            self.device.destroy_pipeline_cache(self.cache.raw, None);
            for lane in &self.lanes {
                lane.destroy(&self.device);
            }
            self.device.destroy_device(None);
        }
    }
}
