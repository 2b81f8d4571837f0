//! Recorded commands, and the pools that they are recorded in.
//!
//! Every command buffer has a pool of its own, so that threads record without locks. Pools are used again.
#![allow(unsafe_code)]

use std::any::Any;
use std::sync::{Arc, Mutex};

use ash::vk;

use super::core::Core;
use super::footprint::Footprint;
use super::lane::{self, COMPUTE};
use crate::monitor::lock;
use crate::{CommandBuffer, DeviceError, QueueKind, Result};

/// Free pools that are kept.
const KEPT: usize = 32;

/// A command buffer in its own pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recording {
    pub(crate) family: u32,
    pub(crate) pool: vk::CommandPool,
    pub(crate) commands: vk::CommandBuffer,
}

impl Recording {
    /// A command buffer that is being recorded, to be submitted any number of times, also while it runs.
    pub(crate) fn begin(core: &Core, family: u32) -> Result<Self, vk::Result> {
        let free = {
            let mut free = lock(&core.free_recordings);
            let place = free.iter().position(|r| r.family == family);
            place.map(|i| free.swap_remove(i))
        };
        let recording = match free {
            Some(recording) => recording,
            None => Self::new(core, family)?,
        };
        let flags = vk::CommandBufferUsageFlags::SIMULTANEOUS_USE;
        let info = vk::CommandBufferBeginInfo::default().flags(flags);
        // SAFETY: the pool was reset or is new, and is this recording's alone.
        let begun = unsafe { core.device.begin_command_buffer(recording.commands, &info) };
        if let Err(error) = begun {
            recording.free(core);
            return Err(error);
        }
        Ok(recording)
    }

    fn new(core: &Core, family: u32) -> Result<Self, vk::Result> {
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the family is one of the device's.
        let pool = unsafe { core.device.create_command_pool(&info, None) }?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool was made above and is nobody else's.
        match unsafe { core.device.allocate_command_buffers(&info) } {
            Ok(buffers) => Ok(Self { family, pool, commands: buffers[0] }),
            Err(error) => {
                // SAFETY: as above; nothing was made of it.
                unsafe { core.device.destroy_command_pool(pool, None) };
                Err(error)
            }
        }
    }

    /// Gives the pool back. Nothing uses its commands any more.
    pub(crate) fn free(self, core: &Core) {
        // SAFETY: the last holder of the commands has let them go; no submission of them is pending.
        let reset = unsafe { core.device.reset_command_pool(self.pool, vk::CommandPoolResetFlags::empty()) };
        let mut free = lock(&core.free_recordings);
        if reset.is_ok() && free.len() < KEPT {
            free.push(self);
        } else {
            // SAFETY: as above.
            unsafe { core.device.destroy_command_pool(self.pool, None) };
        }
    }
}

/// A command that both kinds of queue run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Copy { from: vk::Buffer, to: vk::Buffer, region: vk::BufferCopy },
    Barrier,
}

/// What a command buffer is behind its handle.
pub(crate) struct CommandList {
    pub(crate) core: Arc<Core>,
    pub(crate) label: Arc<str>,
    pub(crate) dispatches: u64,
    pub(crate) footprint: Footprint,
    /// For the compute queue.
    pub(crate) main: Recording,
    /// All commands again, when the transfer queue can run them.
    pub(crate) steps: Vec<Step>,
    /// For the transfer queue where that is of another family; recorded when first submitted there.
    pub(crate) transfer: Mutex<Option<Recording>>,
    pub(crate) descriptors: Vec<vk::DescriptorPool>,
    /// Buffers and pipelines in use.
    pub(crate) _keep: Vec<Arc<dyn Any + Send + Sync>>,
}

impl CommandList {
    /// The list behind a command buffer, if the queue of this device can run it.
    pub(crate) fn of(commands: &CommandBuffer, core: &Core, queue: QueueKind) -> Result<Arc<Self>> {
        let list = commands.native.clone().downcast::<Self>().ok().filter(|list| list.core.id == core.id);
        let usage = |rule: &str| DeviceError::Usage(format!("submission '{}': {rule}", commands.label));
        let list = list.ok_or_else(|| usage("its commands were recorded for another device"))?;
        if queue == QueueKind::Transfer && list.dispatches > 0 {
            return Err(usage("the transfer queue runs copies only; submit dispatches to the compute queue"));
        }
        Ok(list)
    }

    /// The commands in the form that a queue's family takes.
    pub(crate) fn commands_for(&self, queue: QueueKind) -> Result<vk::CommandBuffer> {
        let core = &self.core;
        let family = core.lanes[lane::index(queue)].family;
        if family == self.main.family {
            return Ok(self.main.commands);
        }
        let mut transfer = lock(&self.transfer);
        if let Some(recording) = *transfer {
            return Ok(recording.commands);
        }
        let failed = |result| core.error(&format!("command buffer '{}'", self.label), result);
        let recording = Recording::begin(core, family).map_err(failed)?;
        for step in &self.steps {
            // SAFETY: the list holds the buffers, and the ranges were checked when they were recorded.
            unsafe { step.record(&core.device, recording.commands) };
        }
        // SAFETY: recording was begun above.
        if let Err(result) = unsafe { core.device.end_command_buffer(recording.commands) } {
            recording.free(core);
            return Err(failed(result));
        }
        core.name(recording.commands, &self.label);
        *transfer = Some(recording);
        Ok(recording.commands)
    }
}

impl Step {
    /// # Safety
    /// `commands` are being recorded, and the buffers outlive them.
    pub(crate) unsafe fn record(&self, device: &ash::Device, commands: vk::CommandBuffer) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Copy { from, to, region } => device.cmd_copy_buffer(commands, *from, *to, &[*region]),
                Self::Barrier => {
                    use vk::{AccessFlags2 as Access, PipelineStageFlags2 as Stage};
                    let both = Access::MEMORY_READ | Access::MEMORY_WRITE;
                    let all =
                        [lane::barrier(Stage::ALL_COMMANDS, Access::MEMORY_WRITE, Stage::ALL_COMMANDS, both)];
                    device.cmd_pipeline_barrier2(
                        commands,
                        &vk::DependencyInfo::default().memory_barriers(&all),
                    );
                }
            }
        }
    }
}

impl Drop for CommandList {
    fn drop(&mut self) {
        self.main.free(&self.core);
        if let Some(transfer) = lock(&self.transfer).take() {
            transfer.free(&self.core);
        }
        for pool in self.descriptors.drain(..) {
            // SAFETY: pending submissions hold the list, so there are none that use its sets.
            unsafe { self.core.device.destroy_descriptor_pool(pool, None) };
        }
        debug_assert_eq!(self.main.family, self.core.lanes[COMPUTE].family);
    }
}
