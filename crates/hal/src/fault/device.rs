//! The device that makes another one fail.

use std::sync::Arc;

use super::INJECTED;
use super::clock::Clock;
use super::core::Core;
use super::encoder::{FaultEncoder, no_memory};
use super::event::FaultEvent;
use super::plan::{Call, Fault, FaultPlan};
use super::schedule::Injection;
use super::statistics::FaultStatistics;
use crate::monitor::lock;
use crate::{
    Buffer, BufferDesc, Device, DeviceError, DeviceInfo, Encoder, Event, Heap, HeapDesc, Pipeline,
    PipelineDesc, QueueKind, Result, Slice, Submission, Submit,
};

/// A device around another one, which fails as a [`FaultPlan`] says and otherwise does what that one does.
///
/// Heaps, buffers and pipelines are those of the device inside and may be used with either; events and command buffers
/// belong to this one. Dropping it fails the submissions that it holds back with [`DeviceError::Lost`] and leaves the others
/// to the device inside.
pub struct FaultDevice {
    pub(super) core: Arc<Core>,
    /// Before the device inside, which may wait for what it holds back when it is dropped.
    pub(super) clock: Clock,
    pub(super) inner: Arc<dyn Device>,
    info: DeviceInfo,
}

impl FaultDevice {
    /// A device around `inner` by which nothing fails yet.
    pub fn new(inner: Arc<dyn Device>) -> Arc<Self> {
        let info = inner.info().clone();
        Arc::new(Self { core: Core::new(), clock: Clock::new(), inner, info })
    }

    /// [`FaultDevice::new`], which tells that it shares no memory with the host, like a card: so that bytes go by transfers,
    /// which can go wrong, also where `inner` has no need of them.
    pub fn with_own_memory(inner: Arc<dyn Device>) -> Arc<Self> {
        let mut info = inner.info().clone();
        (info.limits.unified_memory, info.limits.mapped) = (false, false);
        Arc::new(Self { core: Core::new(), clock: Clock::new(), inner, info })
    }

    /// From now on calls fail by `plan`, from its beginning.
    pub fn arm(&self, plan: FaultPlan) {
        lock(&self.core.schedule).arm(plan);
    }

    /// From now on nothing fails, except what is under way; what [`FaultDevice::next`] asked for is forgotten. A lost device
    /// stays lost.
    pub fn disarm(&self) {
        lock(&self.core.schedule).disarm();
    }

    /// The next call that can meet `fault` does, armed or not; asked for twice, the next two calls do. A call meets one
    /// fault: of several that it could, the first in [`Call::faults`].
    pub fn next(&self, fault: Fault) {
        lock(&self.core.schedule).force(fault);
    }

    /// Loses the device at this moment.
    pub fn lose(&self, reason: &str) {
        self.core.lose(&format!("{INJECTED}: {reason}"));
    }

    /// Counts since the device was made.
    pub fn statistics(&self) -> FaultStatistics {
        lock(&self.core.schedule).statistics.clone()
    }

    /// The device inside.
    pub fn inner(&self) -> &Arc<dyn Device> {
        &self.inner
    }

    /// What a call meets that can meet any of its faults.
    fn meet(&self, call: Call) -> Result<Option<Injection>> {
        self.core.meet(call, |_| true)
    }

    /// A call that reserves memory.
    fn reserve<T>(
        &self,
        call: Call,
        what: std::fmt::Arguments<'_>,
        requested: u64,
        make: impl FnOnce(&dyn Device) -> Result<T>,
    ) -> Result<T> {
        let Some(injection) = self.meet(call)? else { return make(&*self.inner) };
        self.core.count(injection.fault);
        let budget = self.inner.info().limits.memory_budget;
        Err(DeviceError::OutOfMemory {
            what: format!("{what} ({INJECTED})"),
            requested,
            available: budget.saturating_sub(self.inner.allocated()),
        })
    }

    /// Fails the host's access to a buffer.
    fn refuse(&self, fault: Fault, slice: &Slice) -> Result<()> {
        self.core.count(fault);
        let (verb, label) = match fault {
            Fault::ReadFailure => ("read", slice.buffer.label()),
            _ => ("write", slice.buffer.label()),
        };
        Err(DeviceError::Submission { label: format!("{verb} of buffer '{label}'"), reason: INJECTED.into() })
    }

    /// Changes some of the bytes that `data` was written to.
    fn corrupt(&self, slice: &Slice, data: &[u8], mut injection: Injection) -> Result<()> {
        let draws = &mut injection.draws;
        let offset = draws.below(slice.size);
        let size = (1 + draws.below(4)).min(slice.size.saturating_sub(offset));
        let place = slice.slice(offset, size)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut bytes: Vec<u8> = data.iter().skip(from).take(size as usize).copied().collect();
        for byte in &mut bytes {
            // Never zero, so that every byte changes.
            *byte ^= 1 + draws.below(255) as u8;
        }
        self.inner.write(&place, &bytes)?;
        self.core.count(injection.fault);
        Ok(())
    }
}

impl Device for FaultDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }

    fn create_heap(&self, desc: &HeapDesc<'_>) -> Result<Heap> {
        let what = format_args!("heap '{}'", desc.label);
        self.reserve(Call::CreateHeap, what, desc.size, |inner| inner.create_heap(desc))
    }

    fn create_buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer> {
        let what = format_args!("buffer '{}'", desc.label);
        self.reserve(Call::CreateBuffer, what, desc.size, |inner| inner.create_buffer(desc))
    }

    fn create_pipeline(&self, desc: &PipelineDesc) -> Result<Pipeline> {
        self.meet(Call::CreatePipeline)?;
        self.inner.create_pipeline(desc)
    }

    fn create_event(&self, initial: u64) -> Result<Event> {
        self.meet(Call::CreateEvent)?;
        Ok(FaultEvent::event(&self.core, self.inner.create_event(initial)?, initial))
    }

    fn create_encoder(&self, label: &str) -> Result<Box<dyn Encoder>> {
        if let Some(injection) = self.meet(Call::CreateEncoder)? {
            self.core.count(injection.fault);
            return Err(no_memory(label));
        }
        let inner = self.inner.create_encoder(label)?;
        Ok(Box::new(FaultEncoder {
            core: self.core.clone(),
            inner,
            label: label.into(),
            copies: Some(Vec::new()),
        }))
    }

    fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission> {
        self.submit_with_faults(queue, submit)
    }

    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        let can = |fault| fault != Fault::WriteCorruption || slice.size > 0;
        match self.core.meet(Call::Write, can)? {
            Some(injection) if injection.fault == Fault::WriteCorruption => {
                self.inner.write(slice, data)?;
                self.corrupt(slice, data, injection)
            }
            Some(injection) => self.refuse(injection.fault, slice),
            None => self.inner.write(slice, data),
        }
    }

    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        match self.meet(Call::Read)? {
            Some(injection) => self.refuse(injection.fault, slice),
            None => self.inner.read(slice, data),
        }
    }
}

impl std::fmt::Debug for FaultDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultDevice({:?})", self.inner)
    }
}

impl Drop for FaultDevice {
    fn drop(&mut self) {
        // What is under way holds events, and these hold it.
        self.core.forget();
    }
}
