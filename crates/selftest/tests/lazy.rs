//! The checks notice a device that accepts everything and leaves some of it undone.

use std::sync::Arc;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::*;
use bessemer_selftest::{Ending, Group, Report, Selftest};

/// What is left undone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Undone {
    Launches,
    Copies,
    /// The last launch of each recording.
    LastLaunch,
}

/// The CPU device, but for what its encoders leave out.
#[derive(Debug)]
struct LazyDevice(Arc<CpuDevice>, Undone);

struct LazyEncoder {
    inner: Box<dyn Encoder>,
    undone: Undone,
    held: Option<Dispatch>,
}

impl LazyEncoder {
    /// Records the launch that is held, since another command follows it.
    fn release(&mut self) -> Result<()> {
        self.held.take().map_or(Ok(()), |launch| self.inner.dispatch(&launch))
    }
}

impl Encoder for LazyEncoder {
    fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()> {
        match self.undone {
            Undone::Launches => Ok(()),
            Undone::Copies => self.inner.dispatch(dispatch),
            Undone::LastLaunch => {
                if self.held.is_some() {
                    self.release()?;
                    self.inner.barrier();
                }
                self.held = Some(dispatch.clone());
                Ok(())
            }
        }
    }

    fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        match self.undone {
            Undone::Copies => Ok(()),
            _ => self.inner.copy(from, to),
        }
    }

    fn barrier(&mut self) {
        self.inner.barrier();
    }

    fn finish(self: Box<Self>) -> Result<CommandBuffer> {
        self.inner.finish()
    }
}

impl Device for LazyDevice {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn allocated(&self) -> u64 {
        self.0.allocated()
    }

    fn create_heap(&self, desc: &HeapDesc<'_>) -> Result<Heap> {
        self.0.create_heap(desc)
    }

    fn create_buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer> {
        self.0.create_buffer(desc)
    }

    fn create_pipeline(&self, desc: &PipelineDesc) -> Result<Pipeline> {
        self.0.create_pipeline(desc)
    }

    fn create_event(&self, initial: u64) -> Result<Event> {
        self.0.create_event(initial)
    }

    fn create_encoder(&self, label: &str) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(LazyEncoder { inner: self.0.create_encoder(label)?, undone: self.1, held: None }))
    }

    fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission> {
        self.0.submit(queue, submit)
    }

    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        self.0.write(slice, data)
    }

    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        self.0.read(slice, data)
    }
}

fn run(undone: Undone, part: &str) -> Report {
    let open = || {
        let cpu = CpuDevice::new(&CpuOptions { threads: Some(2), memory_budget: Some(1 << 30) });
        Ok::<Arc<dyn Device>, _>(Arc::new(LazyDevice(cpu, undone)))
    };
    let selftest = Selftest { filter: Some(part.into()), ..Selftest::default() };
    let report = selftest.run(&open, &Group::all(), &mut |_| ()).unwrap();
    assert!(!report.checks.is_empty());
    report
}

fn unnoticed(report: &Report) -> Vec<&str> {
    let passed = report.checks.iter().filter(|entry| entry.ending != Ending::Failed);
    passed.map(|entry| entry.name.as_str()).collect()
}

/// These hold results of the device against each other: nothing equals nothing, and their neighbours notice it.
const AGAINST_ITSELF: [&str; 4] = [
    "kernels/attention/nothing_beside_a_row_changes_its_bits",
    "kernels/linear/rows_keep_their_bits",
    "kernels/rms_norm/rows_keep_their_bits",
    "kernels/tile/rows_are_apart",
];

#[test]
fn every_check_of_a_kernel_notices_that_it_has_not_run() {
    for undone in [Undone::Launches, Undone::LastLaunch] {
        let report = run(undone, "kernels/");
        let mut unnoticed = unnoticed(&report);
        unnoticed.retain(|name| !AGAINST_ITSELF.contains(name));
        assert_eq!(unnoticed, [] as [&str; 0], "{undone:?}");
    }
}

#[test]
fn every_model_notices_launches_that_have_not_run() {
    assert_eq!(unnoticed(&run(Undone::Launches, "models/")), [] as [&str; 0]);
    assert_eq!(unnoticed(&run(Undone::LastLaunch, "models/")), [] as [&str; 0]);
}

#[test]
fn lost_commands_of_a_device_are_noticed() {
    assert_eq!(unnoticed(&run(Undone::Launches, "device/order/")), [] as [&str; 0]);
    assert_eq!(unnoticed(&run(Undone::Copies, "device/copies/")), [] as [&str; 0]);
    let lost = run(Undone::LastLaunch, "device/order/");
    // Where a copy follows the launch, this device has not lost it.
    assert!(lost.count(Ending::Failed) * 2 > lost.checks.len(), "{}", lost.summary());
}
