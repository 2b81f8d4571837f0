//! The recorder: operations in, a submitted step out.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bessemer_hal::{CommandBuffer, DeviceError, Encoder, Result, Slice, Submission};
use bessemer_kernels::Op;

use crate::recording::Part;
use crate::step_data::PlacedData;
use crate::step_transfers::Arrival;
use crate::{
    Completion, HazardTracker, MemoryPool, PoolBuffer, Recording, RingWork, Runtime, Step, StepData,
};

/// Records one step: transient memory, per-step data, operations in order.
pub struct Recorder<'r> {
    runtime: &'r Runtime,
    label: String,
    encoder: Box<dyn Encoder>,
    /// Command buffers that are complete, each with the name of what runs in it.
    parts: Vec<Part>,
    hazards: HazardTracker,
    operations: usize,
    borrowed: Borrowed,
    /// Indices into the borrowed buffers that an ended scope left for the next one.
    spare: Vec<usize>,
    /// Indices taken since the open scope began.
    scope: Vec<usize>,
    data: Option<PlacedData>,
    /// The data, while it is on its way to the first submission.
    arrival: Option<Arrival>,
    /// Of a step that is submitted while it is recorded.
    committing: Option<Committing>,
    started: Instant,
}

/// How far a step has been submitted.
struct Committing {
    /// Layers of a part.
    every: usize,
    /// Layers since the last part.
    layers: usize,
    submissions: Vec<Submission>,
}

/// Buffers lent by the pool. Dropping it gives them back, after the submissions that use them.
pub(crate) struct Borrowed {
    pool: Arc<MemoryPool>,
    pub(crate) buffers: Vec<PoolBuffer>,
    /// The latest: those before them end before them, because they are on one queue.
    used_by: Mutex<Option<Completion>>,
}

impl Borrowed {
    fn new(pool: Arc<MemoryPool>) -> Self {
        Self { pool, buffers: Vec::new(), used_by: Mutex::default() }
    }

    /// The device uses the buffers until these have ended.
    pub(crate) fn used_by(&self, submissions: &[Submission]) {
        if !submissions.is_empty() {
            *self.used_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(submissions.into());
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let used_by = self.used_by.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = used_by {
            self.pool.release_after(self.buffers.drain(..), done);
        }
    }
}

impl<'r> Recorder<'r> {
    /// `every`: submits what it has behind so many layers.
    pub(crate) fn new(runtime: &'r Runtime, label: &str, every: Option<usize>) -> Result<Self> {
        Ok(Self {
            runtime,
            label: label.to_owned(),
            encoder: runtime.device().create_encoder(label)?,
            parts: Vec::new(),
            hazards: HazardTracker::new(),
            operations: 0,
            borrowed: Borrowed::new(runtime.memory_pool().clone()),
            spare: Vec::new(),
            scope: Vec::new(),
            data: None,
            arrival: None,
            committing: every.map(|every| Committing { every, layers: 0, submissions: Vec::new() }),
            started: Instant::now(),
        })
    }

    /// The runtime that it records for.
    pub fn runtime(&self) -> &'r Runtime {
        self.runtime
    }

    /// Memory for this step alone; its contents are undefined until an operation writes them.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn transient(&mut self, label: &str, bytes: usize) -> Result<Slice> {
        let sizes = bytes as u64..=self.borrowed.pool.bucket(bytes as u64);
        let buffers = &self.borrowed.buffers;
        let Some(at) = self.spare.iter().rposition(|index| sizes.contains(&buffers[*index].size())) else {
            return self.fresh(label, bytes);
        };
        let index = self.spare.swap_remove(at);
        self.scope.push(index);
        self.borrowed.buffers[index].slice(0, bytes as u64)
    }

    /// Memory that no operation recorded so far uses.
    fn fresh(&mut self, label: &str, bytes: usize) -> Result<Slice> {
        let buffer = self.borrowed.pool.acquire(label, bytes as u64)?;
        let slice = buffer.slice(0, bytes as u64);
        self.scope.push(self.borrowed.buffers.len());
        self.borrowed.buffers.push(buffer);
        slice
    }

    /// Records what `body` records; the transient memory it takes is taken again by what comes after it. Nothing of it
    /// may be used outside. The hazard tracker keeps the users of one buffer apart.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn scoped<T, E>(&mut self, body: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let outer = std::mem::take(&mut self.scope);
        let outcome = body(self);
        let inner = std::mem::replace(&mut self.scope, outer);
        self.spare.extend(inner);
        outcome
    }

    /// Places the data of this step on the device; it is there when the step runs.
    ///
    /// # Errors
    /// When the device has no memory, or this step has its data already.
    pub fn place(&mut self, data: &StepData) -> Result<PlacedData> {
        if self.data.is_some() {
            return Err(DeviceError::Usage(format!("step '{}' has its data already", self.label)));
        }
        // Written now, before the step runs: memory that an ended scope left would be overwritten by that scope.
        let whole = self.fresh("step_data", data.bytes().len())?;
        self.arrival = self.runtime.upload(&whole, data.bytes())?;
        Ok(self.data.insert(PlacedData::new(whole, data)).clone())
    }

    /// Records an operation, behind a barrier where it needs one.
    ///
    /// # Errors
    /// When its buffers do not fit its shapes.
    pub fn record(&mut self, op: &impl Op) -> Result<()> {
        let catalog = self.runtime.catalog();
        let launches =
            self.scoped(|recorder| catalog.launches(op, |bytes| recorder.transient("scratch", bytes)))?;
        for dispatch in &launches {
            if self.hazards.needs_barrier(dispatch.bindings.iter().map(|b| (&b.slice, b.writes()))) {
                self.encoder.barrier();
            }
            self.operations += 1;
            self.encoder.dispatch(dispatch)?;
            self.cut_for_profile(dispatch.pipeline.label())?;
        }
        Ok(())
    }

    /// Ends the command buffer behind every launch of a profiled step.
    fn cut_for_profile(&mut self, name: &'static str) -> Result<()> {
        if self.runtime.profile().is_some() {
            let next = self.runtime.device().create_encoder(&self.label)?;
            let commands = std::mem::replace(&mut self.encoder, next).finish()?;
            self.parts.push(Part { name, commands });
        }
        Ok(())
    }

    /// Records a copy of `from` to `to`, equal in size.
    ///
    /// # Errors
    /// When the sizes differ or the ranges overlap.
    pub fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        if self.hazards.needs_barrier([(from, false), (to, true)].into_iter()) {
            self.encoder.barrier();
        }
        self.operations += 1;
        self.encoder.copy(from, to)?;
        self.cut_for_profile("copy")
    }

    /// A layer of the model has been recorded.
    ///
    /// # Errors
    /// When the device refuses what is committed here.
    pub fn end_layer(&mut self) -> Result<()> {
        let Some(committing) = self.committing.as_mut() else { return Ok(()) };
        committing.layers += 1;
        if committing.layers < committing.every {
            return Ok(());
        }
        let next = self.runtime.device().create_encoder(&self.label)?;
        let commands = std::mem::replace(&mut self.encoder, next).finish()?;
        let ready = self.runtime.ready(self.arrival.take())?;
        let work = RingWork { commands: &commands, wait: ready.as_slice(), signal: &[], reused: false };
        committing.submissions.push(self.runtime.commit(work)?);
        committing.layers = 0;
        self.borrowed.used_by(&committing.submissions);
        self.parts.push(Part { name: "layers", commands });
        // Submissions of one queue run one after the other.
        self.hazards.clear();
        Ok(())
    }

    /// What was recorded, the command buffer that is not a part of it yet, and what was submitted.
    fn end(self) -> Result<(CommandBuffer, Recording, Vec<Submission>)> {
        let Self {
            runtime,
            label,
            encoder,
            parts,
            hazards,
            operations,
            borrowed,
            data,
            arrival,
            committing,
            ..
        } = self;
        let commands = encoder.finish()?;
        runtime.count_encoding(self.started.elapsed());
        tracing::trace!(label, operations, barriers = hazards.barriers(), "recorded");
        let (arrival, submitted) = (Mutex::new(arrival), AtomicBool::new(false));
        let recording = Recording { label, parts, data, borrowed, arrival, submitted };
        Ok((commands, recording, committing.map(|committing| committing.submissions).unwrap_or_default()))
    }

    /// Ends recording.
    ///
    /// # Errors
    /// When the device cannot hold the commands, or parts of it are submitted already.
    pub fn finish(self) -> Result<Recording> {
        let (commands, mut recording, submissions) = self.end()?;
        if !submissions.is_empty() {
            let rule = format!("step '{}' is submitted while it is recorded, and once", recording.label);
            return Err(DeviceError::Usage(rule));
        }
        // Behind every launch of a profiled step its commands were cut off.
        if recording.parts.is_empty() {
            recording.parts.push(Part { name: "step", commands });
        }
        Ok(recording)
    }

    /// Ends recording and submits what has not been submitted.
    ///
    /// # Errors
    /// When the device refuses the submission.
    pub fn submit(self) -> Result<Step> {
        let runtime = self.runtime;
        if self.committing.as_ref().is_none_or(|committing| committing.submissions.is_empty()) {
            return runtime.submit(&Arc::new(self.finish()?));
        }
        let (commands, mut recording, mut submissions) = self.end()?;
        let reached = runtime.next_step(false);
        let signal = std::slice::from_ref(&reached);
        let work = RingWork { commands: &commands, wait: &[], signal, reused: false };
        submissions.push(runtime.commit(work)?);
        recording.borrowed.used_by(&submissions);
        recording.parts.push(Part { name: "layers", commands });
        Ok(runtime.step(submissions, reached, Arc::new(recording)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bessemer_hal::cpu::{CpuDevice, CpuOptions};
    use bessemer_hal::{Device, QueueKind, Submit};

    use super::*;

    #[test]
    fn an_input_survives_the_scopes_before_it() {
        let runtime =
            Runtime::new(CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() })).unwrap();
        let source = runtime.allocate("source", 256).unwrap();
        runtime.device().write(&source, &[1; 256]).unwrap();
        let out = runtime.allocate("out", 256).unwrap();
        let mut recorder = runtime.recorder("test").unwrap();
        let scope = recorder.scoped(|recorder| {
            let scratch = recorder.transient("scratch", 256)?;
            recorder.copy(&source, &scratch)
        });
        scope.unwrap();
        let mut data = StepData::default();
        let field = data.push(&[2_u8; 256], 256);
        let input = recorder.place(&data).unwrap().slice(field).unwrap();
        recorder.copy(&input, &out).unwrap();
        let step = recorder.submit().unwrap();
        step.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(step.read::<u8>(&out).unwrap(), [2; 256]);
    }

    /// Steps of one shape borrow the same memory again, and give all of it back.
    #[test]
    fn a_steady_step_asks_the_device_for_nothing() {
        let runtime =
            Runtime::new(CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() })).unwrap();
        let run = || {
            let mut recorder = runtime.recorder("test").unwrap();
            let mut data = StepData::default();
            let field = data.push(&[7_u32; 100], 100);
            let input = recorder.place(&data).unwrap().slice(field).unwrap();
            let copy = recorder.transient("copy", 400).unwrap();
            recorder.copy(&input, &copy).unwrap();
            let step = recorder.submit().unwrap();
            step.wait(Duration::from_secs(10)).unwrap();
            assert_eq!(step.read::<u32>(&copy).unwrap(), [7; 100]);
        };
        run();
        let first = runtime.memory_pool().statistics();
        run();
        let second = runtime.memory_pool().statistics();
        assert_eq!((first.placed_buffers, first.total_acquired, first.total_released), (2, 2, 2));
        assert_eq!((second.placed_buffers, second.total_acquired, second.total_released), (2, 4, 4));
        assert_eq!((first.device_allocations, second.device_allocations), (1, 1), "one heap");
        let spent = || runtime.optimization_stats().steps.allocation_ns;
        let before = spent();
        assert!(before > 0 && spent() == before, "who looks spends nothing");
        run();
        assert!(spent() > before);
        assert_eq!(second.bytes_reserved, first.bytes_reserved);
    }

    #[test]
    fn a_recording_runs_again_with_other_data() {
        let runtime =
            Runtime::new(CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() })).unwrap();
        let out = runtime.allocate("out", 40).unwrap();
        let data = |value: u32, count: usize| {
            let mut data = StepData::default();
            let field = data.push(&vec![value; count], 10);
            (data, field)
        };
        let mut recorder = runtime.recorder("test").unwrap();
        let (first, field) = data(1, 10);
        let input = recorder.place(&first).unwrap().slice(field).unwrap();
        recorder.copy(&input, &out).unwrap();
        assert!(recorder.place(&first).is_err(), "a step has its data once");
        let recording = Arc::new(recorder.finish().unwrap());
        for value in [1, 2, 3] {
            recording.write(&runtime, &data(value, 10).0).unwrap();
            let step = runtime.submit(&recording).unwrap();
            step.wait(Duration::from_secs(10)).unwrap();
            assert_eq!(step.read::<u32>(&out).unwrap(), [value; 10]);
        }
        assert!(recording.write(&runtime, &data(1, 11).0).unwrap_err().to_string().contains("layout"));
    }

    /// A recording that nobody holds any more keeps its memory until the device is done.
    #[test]
    fn memory_returns_after_the_submission_that_uses_it() {
        let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() });
        let runtime = Runtime::new(device.clone()).unwrap();
        let recording = || {
            let mut recorder = runtime.recorder("test").unwrap();
            let from = recorder.transient("from", 256).unwrap();
            let to = recorder.transient("to", 256).unwrap();
            recorder.copy(&from, &to).unwrap();
            Arc::new(recorder.finish().unwrap())
        };
        let go = device.create_event(0).unwrap();
        let held = recording();
        let commands = &held.parts[0].commands;
        let submit = Submit { commands, wait: &[(go.clone(), 1)], signal: &[] };
        let submission = device.submit(QueueKind::Compute, submit).unwrap();
        held.borrowed.used_by(std::slice::from_ref(&submission));
        held.borrowed.used_by(&[]);
        drop(held);
        assert_eq!(runtime.memory_pool().statistics().pending, 2);
        // A step is behind it on the queue, and its recording knows.
        let next = recording();
        let step = runtime.submit(&next).unwrap();
        let done = next.borrowed.used_by.lock().unwrap().clone();
        assert!(!done.unwrap().is_done());
        go.signal(1);
        submission.wait(Duration::from_secs(10)).unwrap();
        step.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(runtime.memory_pool().statistics().pending, 0);
        drop((step, next));
        assert_eq!(runtime.memory_pool().statistics().live, 0);
    }
}
