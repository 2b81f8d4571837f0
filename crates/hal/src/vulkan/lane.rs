//! A queue of the GPU, its timeline, and the commands around each submission.
//!
//! A lane is what submissions of one kind go through. Lanes have timelines of their own, also where they share a queue
//! because the GPU has no more.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use ash::vk;

use super::clock::Clock;
use crate::QueueKind;
use crate::monitor::lock;

/// The lane of [`QueueKind::Compute`].
pub(crate) const COMPUTE: usize = 0;
/// The lane of [`QueueKind::Transfer`].
pub(crate) const TRANSFER: usize = 1;
/// The lane of the copies that reads and writes make.
pub(crate) const COPIES: usize = 2;

/// Slots that are made at once.
const SLOTS: u32 = 64;

pub(crate) fn index(queue: QueueKind) -> usize {
    match queue {
        QueueKind::Compute => COMPUTE,
        QueueKind::Transfer => TRANSFER,
    }
}

pub(crate) struct Lane {
    pub(crate) family: u32,
    /// Shared between lanes of one queue; held while work is handed to it.
    pub(crate) queue: Arc<Mutex<vk::Queue>>,
    /// Stands at the number of the last submission that has ended.
    pub(crate) timeline: vk::Semaphore,
    /// What the timeline was last seen at.
    pub(crate) completed: AtomicU64,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// Of the family; made with the first slots.
    commands: vk::CommandPool,
    pools: Vec<vk::QueryPool>,
    free: Vec<Slot>,
}

/// The commands before and after a submission's own, and the timestamps that they write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    queries: vk::QueryPool,
    first: u32,
    pub(crate) begin: vk::CommandBuffer,
    pub(crate) end: vk::CommandBuffer,
}

impl Lane {
    pub(crate) fn new(
        device: &ash::Device,
        family: u32,
        queue: Arc<Mutex<vk::Queue>>,
    ) -> Result<Self, vk::Result> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the chained struct lives over the call.
        let timeline = unsafe { device.create_semaphore(&info, None) }?;
        Ok(Self { family, queue, timeline, completed: AtomicU64::new(0), slots: Mutex::default() })
    }

    /// A slot that no pending submission uses.
    pub(crate) fn take_slot(&self, device: &ash::Device, clock: Option<&Clock>) -> Result<Slot, vk::Result> {
        let mut slots = lock(&self.slots);
        if slots.free.is_empty() {
            self.more_slots(device, clock, &mut slots)?;
        }
        slots.free.pop().ok_or(vk::Result::ERROR_OUT_OF_HOST_MEMORY)
    }

    pub(crate) fn give_slot(&self, slot: Slot) {
        lock(&self.slots).free.push(slot);
    }

    fn more_slots(
        &self,
        device: &ash::Device,
        clock: Option<&Clock>,
        slots: &mut Slots,
    ) -> Result<(), vk::Result> {
        // SAFETY: what is made here is destroyed with the lane; the commands name objects that live as long, and no
        // submission uses them yet.
        unsafe {
            if slots.commands == vk::CommandPool::null() {
                let info = vk::CommandPoolCreateInfo::default().queue_family_index(self.family);
                slots.commands = device.create_command_pool(&info, None)?;
            }
            let mut queries = vk::QueryPool::null();
            if clock.is_some() {
                let info = vk::QueryPoolCreateInfo::default()
                    .query_type(vk::QueryType::TIMESTAMP)
                    .query_count(SLOTS * 2);
                queries = device.create_query_pool(&info, None)?;
                slots.pools.push(queries);
            }
            let info = vk::CommandBufferAllocateInfo::default()
                .command_pool(slots.commands)
                .level(vk::CommandBufferLevel::PRIMARY)
                .command_buffer_count(SLOTS * 2);
            let buffers = device.allocate_command_buffers(&info)?;
            let mut made = Vec::with_capacity(SLOTS as usize);
            for (pair, first) in buffers.chunks_exact(2).zip((0..).step_by(2)) {
                let slot = Slot { queries, first, begin: pair[0], end: pair[1] };
                record_around(device, &slot)?;
                made.push(slot);
            }
            slots.free.append(&mut made);
        }
        Ok(())
    }

    /// # Safety
    /// Nothing of the lane is in use.
    pub(crate) unsafe fn destroy(&self, device: &ash::Device) {
        let mut slots = lock(&self.slots);
        // SAFETY: the caller's promise.
        unsafe {
            for pool in slots.pools.drain(..) {
                device.destroy_query_pool(pool, None);
            }
            device.destroy_command_pool(slots.commands, None);
            device.destroy_semaphore(self.timeline, None);
        }
    }
}

impl Slot {
    /// Makes the timestamps ready to be written.
    ///
    /// # Safety
    /// No pending submission uses the slot.
    pub(crate) unsafe fn reset(&self, device: &ash::Device) {
        if self.queries != vk::QueryPool::null() {
            // SAFETY: the caller's promise.
            unsafe { device.reset_query_pool(self.queries, self.first, 2) };
        }
    }

    /// The two timestamps of a submission that has ended, in ticks.
    pub(crate) fn ticks(&self, device: &ash::Device) -> Result<[u64; 2], vk::Result> {
        let mut ticks = [0_u64; 2];
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        // SAFETY: both queries were reset and written by the submission.
        unsafe { device.get_query_pool_results(self.queries, self.first, &mut ticks, flags) }?;
        Ok(ticks)
    }
}

/// Records what comes before and after a submission: it starts when everything submitted earlier to the queue has ended
/// and sees its writes, and the host sees its own.
///
/// # Safety
/// Both command buffers are new, and the queries live as long as they do.
unsafe fn record_around(device: &ash::Device, slot: &Slot) -> Result<(), vk::Result> {
    use vk::{AccessFlags2 as Access, PipelineStageFlags2 as Stage};
    let memory = Access::MEMORY_READ | Access::MEMORY_WRITE;
    let order = barrier(Stage::ALL_COMMANDS, Access::MEMORY_WRITE, Stage::ALL_COMMANDS, memory);
    let publish = barrier(Stage::ALL_COMMANDS, Access::MEMORY_WRITE, Stage::HOST, Access::HOST_READ);
    for (commands, barrier, query) in [(slot.begin, order, slot.first), (slot.end, publish, slot.first + 1)] {
        // SAFETY: the caller's promise; a slot is used by one submission at a time.
        unsafe {
            device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())?;
            let barriers = [barrier];
            let dependency = vk::DependencyInfo::default().memory_barriers(&barriers);
            device.cmd_pipeline_barrier2(commands, &dependency);
            if slot.queries != vk::QueryPool::null() {
                device.cmd_write_timestamp2(commands, Stage::ALL_COMMANDS, slot.queries, query);
            }
            device.end_command_buffer(commands)?;
        }
    }
    Ok(())
}

/// A barrier over all memory.
pub(crate) fn barrier(
    from: vk::PipelineStageFlags2,
    written: vk::AccessFlags2,
    to: vk::PipelineStageFlags2,
    used: vk::AccessFlags2,
) -> vk::MemoryBarrier2<'static> {
    vk::MemoryBarrier2::default()
        .src_stage_mask(from)
        .src_access_mask(written)
        .dst_stage_mask(to)
        .dst_access_mask(used)
}
