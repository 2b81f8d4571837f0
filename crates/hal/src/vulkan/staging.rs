//! Reads and writes of memory that the host does not see, or sees slowly.
//!
//! Data goes through a *ring* of two chunks in host memory: while the GPU copies one, the host fills or empties the other.
//! Threads that read or write at the same time have rings of their own, which are kept for the next.
#![allow(unsafe_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ash::vk;

use super::core::Core;
use super::lane::{COPIES, barrier};
use super::{buffer, memory, submit};
use crate::monitor::lock;
use crate::{DeviceError, Result};

/// Bytes of a chunk: long enough that its copy hides what a submission costs.
const CHUNK: u64 = 16 << 20;
/// Rings that are kept.
const KEPT: usize = 4;

/// The rings of a device, and the count of their submissions.
pub(crate) struct Staging {
    core: Arc<Core>,
    free: Mutex<Vec<Ring>>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    last_point: u64,
    seen: [u64; 3],
}

struct Ring {
    core: Arc<Core>,
    pool: vk::CommandPool,
    chunks: [Chunk; 2],
}

struct Chunk {
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    host: *mut u8,
    commands: vk::CommandBuffer,
    /// Where the timeline of copies is when the chunk is free.
    point: u64,
}

// SAFETY: a ring is used by one thread at a time, and mapped memory may be accessed from any.
unsafe impl Send for Ring {}

/// Which way data goes.
#[derive(Clone, Copy)]
enum Way {
    ToDevice,
    ToHost,
}

impl Staging {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self { core: core.clone(), free: Mutex::default(), progress: Mutex::default() }
    }

    /// Copies `data` to a place of a buffer, and returns when it is there.
    pub(crate) fn write(&self, to: vk::Buffer, offset: u64, data: &[u8]) -> Result<()> {
        let mut ring = self.take()?;
        let copied = self.write_by(&mut ring, to, offset, data);
        self.give(ring);
        copied
    }

    /// Copies from a place of a buffer.
    pub(crate) fn read(&self, from: vk::Buffer, offset: u64, data: &mut [u8]) -> Result<()> {
        let mut ring = self.take()?;
        let copied = self.read_by(&mut ring, from, offset, data);
        self.give(ring);
        copied
    }

    fn write_by(&self, ring: &mut Ring, to: vk::Buffer, offset: u64, data: &[u8]) -> Result<()> {
        for (index, piece) in data.chunks(CHUNK as usize).enumerate() {
            let chunk = &mut ring.chunks[index % 2];
            self.wait(chunk.point)?;
            // SAFETY: a chunk is at least as long as the piece, and the GPU is done with it.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), chunk.host, piece.len()) };
            let place = offset + index as u64 * CHUNK;
            chunk.point = self.copy(chunk, Way::ToDevice, to, place, piece.len() as u64)?;
        }
        ring.chunks.iter().try_for_each(|chunk| self.wait(chunk.point))
    }

    fn read_by(&self, ring: &mut Ring, from: vk::Buffer, offset: u64, data: &mut [u8]) -> Result<()> {
        let start = |ring: &mut Ring, index: usize, len: usize| {
            let chunk = &mut ring.chunks[index % 2];
            let place = offset + index as u64 * CHUNK;
            chunk.point = self.copy(chunk, Way::ToHost, from, place, len as u64)?;
            Ok::<_, DeviceError>(())
        };
        let total = data.len();
        let length = |index: usize| total.saturating_sub(index * CHUNK as usize).min(CHUNK as usize);
        if total > 0 {
            start(ring, 0, length(0))?;
        }
        for (index, piece) in data.chunks_mut(CHUNK as usize).enumerate() {
            if length(index + 1) > 0 {
                start(ring, index + 1, length(index + 1))?;
            }
            let chunk = &ring.chunks[index % 2];
            self.wait(chunk.point)?;
            // SAFETY: a chunk is at least as long as the piece, and the GPU is done with it.
            unsafe { std::ptr::copy_nonoverlapping(chunk.host, piece.as_mut_ptr(), piece.len()) };
        }
        Ok(())
    }

    /// Has the GPU copy `size` bytes between a chunk and a buffer; the result is the point at which it is done.
    fn copy(&self, chunk: &Chunk, way: Way, other: vk::Buffer, offset: u64, size: u64) -> Result<u64> {
        let core = &self.core;
        let failed = |result| core.error("a copy between host and GPU", result);
        let region = |from, to| [vk::BufferCopy { src_offset: from, dst_offset: to, size }];
        let flags = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
        let info = vk::CommandBufferBeginInfo::default().flags(flags);
        // SAFETY: the chunk's commands are not in use; the caller holds the buffer until they have ended, and the range
        // lies in it.
        unsafe {
            use vk::{AccessFlags2 as Access, PipelineStageFlags2 as Stage};
            let device = &core.device;
            device.begin_command_buffer(chunk.commands, &info).map_err(failed)?;
            match way {
                Way::ToDevice => {
                    device.cmd_copy_buffer(chunk.commands, chunk.buffer, other, &region(0, offset))
                }
                Way::ToHost => {
                    device.cmd_copy_buffer(chunk.commands, other, chunk.buffer, &region(offset, 0));
                    let host = [barrier(
                        Stage::ALL_TRANSFER,
                        Access::TRANSFER_WRITE,
                        Stage::HOST,
                        Access::HOST_READ,
                    )];
                    let dependency = vk::DependencyInfo::default().memory_barriers(&host);
                    device.cmd_pipeline_barrier2(chunk.commands, &dependency);
                }
            }
            device.end_command_buffer(chunk.commands).map_err(failed)?;
        }
        let mut progress = lock(&self.progress);
        let waits = submit::foreign_points(core, COPIES, &progress.seen, [0; 3]);
        let point = progress.last_point + 1;
        submit::submit(core, COPIES, &[chunk.commands], &waits, point).map_err(failed)?;
        progress.last_point = point;
        for (lane, value) in waits {
            progress.seen[lane] = value;
        }
        Ok(point)
    }

    fn wait(&self, point: u64) -> Result<()> {
        while !self.core.wait_for(COPIES, point, Duration::from_secs(1))? {}
        Ok(())
    }

    fn take(&self) -> Result<Ring> {
        let kept = lock(&self.free).pop();
        kept.map_or_else(|| Ring::new(&self.core), Ok)
    }

    fn give(&self, ring: Ring) {
        // After a failed copy the other chunk may still be in use.
        let idle = ring.chunks.iter().all(|chunk| self.wait(chunk.point).is_ok());
        let mut free = lock(&self.free);
        if idle && free.len() < KEPT {
            free.push(ring);
        }
    }
}

impl Ring {
    fn new(core: &Arc<Core>) -> Result<Self> {
        let failed = |result| core.error("the staging memory of reads and writes", result);
        let null = || Chunk {
            buffer: vk::Buffer::null(),
            memory: vk::DeviceMemory::null(),
            host: std::ptr::null_mut(),
            commands: vk::CommandBuffer::null(),
            point: 0,
        };
        // From here on dropping the ring destroys what has been made.
        let mut ring = Self { core: core.clone(), pool: vk::CommandPool::null(), chunks: [null(), null()] };
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(core.lanes[COPIES].family);
        // SAFETY: the family is one of the device's; everything made is of the ring.
        unsafe {
            ring.pool = core.device.create_command_pool(&info, None).map_err(failed)?;
            let info = vk::CommandBufferAllocateInfo::default()
                .command_pool(ring.pool)
                .level(vk::CommandBufferLevel::PRIMARY)
                .command_buffer_count(2);
            let commands = core.device.allocate_command_buffers(&info).map_err(failed)?;
            for (chunk, commands) in ring.chunks.iter_mut().zip(commands) {
                chunk.commands = commands;
                chunk.fill(core).map_err(failed)?;
            }
        }
        Ok(ring)
    }
}

impl Chunk {
    /// Makes the buffer and its memory, which the host sees: cached where possible, for the sake of reads.
    ///
    /// # Safety
    /// The chunk is empty.
    unsafe fn fill(&mut self, core: &Core) -> Result<(), vk::Result> {
        let device = &core.device;
        self.buffer = buffer::create(core, CHUNK)?;
        // SAFETY: the buffer was made above; memory is bound once, and of a type that it can lie in.
        unsafe {
            let needs = device.get_buffer_memory_requirements(self.buffer);
            let types = core.physical.memory.memory_types_as_slice();
            let kind = memory::staging_type(types, needs.memory_type_bits);
            let kind = kind.ok_or(vk::Result::ERROR_OUT_OF_HOST_MEMORY)?;
            let info =
                vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(kind as u32);
            self.memory = device.allocate_memory(&info, None)?;
            device.bind_buffer_memory(self.buffer, self.memory, 0)?;
            self.host =
                device.map_memory(self.memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?.cast();
        }
        core.name(self.buffer, "staging");
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: rings are dropped when their copies have ended, or with a lost device.
        unsafe {
            for chunk in &self.chunks {
                self.core.device.destroy_buffer(chunk.buffer, None);
                self.core.device.free_memory(chunk.memory, None);
            }
            self.core.device.destroy_command_pool(self.pool, None);
        }
    }
}
