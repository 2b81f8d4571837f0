//! The no-op device: checks everything, executes nothing.
//!
//! It measures what lies above the devices, and checks recordings without paying for them. Recording and validation
//! are the CPU device's own; buffers have addresses but *no bytes*, so reads give zeros and the budget is the only
//! limit of size. A submission is complete when [`Device::submit`] returns: events are signalled there, and waits are
//! *not* made, since there is no work that could come too early. But what waits for a value that has failed fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::command::Timing;
use crate::cpu::{self, Backing, CommandList, CpuPipeline, ListEncoder, Memory};
use crate::event::HostEvent;
use crate::submission::HostSubmission;
use crate::{
    Backend, Buffer, BufferDesc, Device, DeviceInfo, Encoder, Event, Heap, HeapDesc, Pipeline, PipelineDesc,
    QueueKind, Result, Slice, Submission, Submit,
};

pub use crate::cpu::Counts;

/// A device that does nothing, at once.
#[derive(Debug)]
pub struct NoopDevice {
    info: DeviceInfo,
    memory: Memory,
    clock: Instant,
    submissions: AtomicU64,
    dispatches: AtomicU64,
    copies: AtomicU64,
    barriers: AtomicU64,
}

impl NoopDevice {
    /// A device with a budget of `memory_budget` bytes, by default the physical memory.
    pub fn new(memory_budget: Option<u64>) -> Arc<Self> {
        let memory = Memory::new(memory_budget.unwrap_or_else(cpu::system_memory), Backing::Unbacked);
        let info = DeviceInfo {
            name: "no-op device".into(),
            backend: Backend::Noop,
            limits: cpu::limits(&memory, 1),
            features: vec![],
        };
        Arc::new(Self {
            info,
            memory,
            clock: Instant::now(),
            submissions: AtomicU64::new(0),
            dispatches: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            barriers: AtomicU64::new(0),
        })
    }

    /// Submissions so far.
    pub fn submissions(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }

    /// Commands submitted so far; those of a command buffer count again with each submission.
    pub fn submitted(&self) -> Counts {
        Counts {
            dispatches: self.dispatches.load(Ordering::Relaxed),
            copies: self.copies.load(Ordering::Relaxed),
            barriers: self.barriers.load(Ordering::Relaxed),
        }
    }
}

impl Device for NoopDevice {
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
        self.submissions.fetch_add(1, Ordering::Relaxed);
        self.dispatches.fetch_add(list.counts.dispatches, Ordering::Relaxed);
        self.copies.fetch_add(list.counts.copies, Ordering::Relaxed);
        self.barriers.fetch_add(list.counts.barriers, Ordering::Relaxed);
        let now = self.clock.elapsed().as_nanos() as u64;
        let failed =
            submit.wait.iter().find_map(|(event, value)| event.state.wait(*value, Duration::ZERO).err());
        for (event, value) in submit.signal {
            match &failed {
                None => event.signal(*value),
                Some(error) => event.state.fail(*value, error.clone()),
            }
        }
        let state = Arc::new(HostSubmission::default());
        state.complete(failed.map_or(Ok(Timing { start_ns: now, end_ns: now }), Err));
        Ok(state.handle())
    }

    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        self.memory.resolve(slice)?;
        cpu::check_length(slice, data.len())
    }

    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        self.memory.resolve(slice)?;
        cpu::check_length(slice, data.len())?;
        data.fill(0);
        Ok(())
    }
}
