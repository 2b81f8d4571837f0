//! The CPU device.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::arena::{ALIGNMENT, Backing};
use super::encoder::{CpuPipeline, ListEncoder};
use super::in_use::InUse;
use super::memory::{Memory, extent};
use super::program::CommandList;
use super::queue::{Executor, Job, Queue, Shared};
use super::system;
use super::team::{Run, Team};
use crate::event::HostEvent;
use crate::submission::HostSubmission;
use crate::{
    Backend, Buffer, BufferDesc, Device, DeviceError, DeviceInfo, Encoder, Event, Heap, HeapDesc, Limits,
    Pipeline, PipelineDesc, QueueKind, Result, Slice, Submission, Submit,
};

/// How to set up a [`CpuDevice`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads that run a dispatch; by default as many as the process may use at once. Zero counts as one.
    pub threads: Option<usize>,
    /// Bytes of heaps and buffers at most; by default the physical memory.
    pub memory_budget: Option<u64>,
}

/// Threads of this process as a device.
///
/// Dropping it finishes the submission that runs on each queue, fails those that have not started with
/// [`DeviceError::Lost`], and joins its threads.
pub struct CpuDevice {
    info: DeviceInfo,
    memory: Memory,
    shared: Arc<Shared>,
    compute: Queue,
    transfer: Queue,
}

impl CpuDevice {
    /// Starts the device and its threads: `threads` for the compute queue, one for the transfer queue.
    pub fn new(options: &CpuOptions) -> Arc<Self> {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or_else(available).max(1);
        let memory = Memory::new(options.memory_budget.unwrap_or_else(system::memory), Backing::Mapped);
        let shared = Arc::new(Shared {
            clock: Instant::now(),
            closing: AtomicBool::new(false),
            in_use: InUse::default(),
        });
        let info = DeviceInfo {
            name: system::processor(),
            backend: Backend::Cpu,
            limits: limits(&memory, threads),
            features: system::features(),
        };
        Arc::new(Self {
            info,
            memory,
            compute: Queue::new("compute-0", shared.clone(), move || with_team(Team::new(threads))),
            transfer: Queue::new("transfer", shared.clone(), || Box::new(alone)),
            shared,
        })
    }
}

pub(crate) fn limits(memory: &Memory, workers: usize) -> Limits {
    Limits {
        memory_budget: memory.budget(),
        max_buffer_size: memory.budget(),
        alignment: ALIGNMENT,
        unified_memory: true,
        mapped: true,
        resubmit: true,
        workers: u32::try_from(workers).unwrap_or(u32::MAX),
        gpu: None,
    }
}

fn with_team(team: Team) -> Box<Executor> {
    // SAFETY: the queue holds the list, and with it the memory, over the call; the table of bytes in use keeps the
    // host and the other queue away from them.
    Box::new(move |list| unsafe { team.run(&list.program) })
}

fn alone(list: &CommandList) -> Result<(), String> {
    // SAFETY: as in `with_team`; the run is finished before the call returns.
    unsafe { Run::new(list.program.clone(), 1) }.finish()
}

impl Device for CpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocated(&self) -> u64 {
        self.memory.allocated()
    }

    fn create_heap(&self, desc: &HeapDesc<'_>) -> Result<Heap> {
        self.memory.heap(desc)
    }

    fn create_buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer> {
        self.memory.buffer(desc)
    }

    fn create_pipeline(&self, desc: &PipelineDesc) -> Result<Pipeline> {
        CpuPipeline::handle(self.memory.device(), desc)
    }

    fn create_event(&self, initial: u64) -> Result<Event> {
        Ok(HostEvent::event(initial))
    }

    fn create_encoder(&self, label: &str) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(ListEncoder::new(self.memory.device(), label)))
    }

    fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission> {
        let list = CommandList::of(submit.commands, self.memory.device(), queue)?;
        let state = Arc::new(HostSubmission::default());
        let job = Job {
            id: self.shared.in_use.submit(&list)?,
            list,
            wait: submit.wait.to_vec(),
            signal: submit.signal.to_vec(),
            state: state.clone(),
        };
        let queue = match queue {
            QueueKind::Compute => &self.compute,
            QueueKind::Transfer => &self.transfer,
        };
        match queue.send(job) {
            Ok(()) => Ok(state.handle()),
            Err(job) => {
                self.shared.in_use.end(job.id);
                Err(DeviceError::Lost("the thread of the queue could not be started".into()))
            }
        }
    }

    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        check_length(slice, data.len())?;
        let to = self.memory.resolve(slice)?;
        // SAFETY: the slice lies inside its buffer, which `slice` keeps alive, has the length of `data`, and is used
        // by nobody else during the call; `data` is host memory, which no buffer overlaps.
        let copy = || unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        self.shared.in_use.host(slice, extent(to, slice.size), true, copy)
    }

    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        check_length(slice, data.len())?;
        let from = self.memory.resolve(slice)?;
        // SAFETY: as in `write`, with the directions exchanged.
        let copy = || unsafe { std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len()) };
        self.shared.in_use.host(slice, extent(from, slice.size), false, copy)
    }
}

/// The host's side of a read or a write is as long as the slice.
pub(crate) fn check_length(slice: &Slice, len: usize) -> Result<()> {
    if slice.size == len as u64 {
        return Ok(());
    }
    Err(DeviceError::Usage(format!(
        "{len} bytes of the host for {} bytes of buffer '{}': lengths must be equal",
        slice.size,
        slice.buffer.label()
    )))
}

impl Drop for CpuDevice {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.compute.close();
        self.transfer.close();
    }
}

impl std::fmt::Debug for CpuDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuDevice({}, {} threads)", self.info.name, self.info.limits.workers)
    }
}
