//! Returns that wait for the device.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::cpu::CpuDevice;
use bessemer_hal::{BufferDesc, CommandBuffer, Device, Encoder, Event, QueueKind, Submission, Submit};

use super::pool_tests::{MB, cpu, small};
use super::{MemoryPool, PoolBuffer};

/// A device with a submission that runs until `go` is signalled.
struct Held {
    device: Arc<CpuDevice>,
    go: Event,
    done: Event,
    submission: Submission,
}

impl Held {
    fn new() -> Self {
        let device = cpu();
        let (go, done) = (device.create_event(0).unwrap(), device.create_event(0).unwrap());
        let commands = copy(&*device);
        let submit = Submit { commands: &commands, wait: &[(go.clone(), 1)], signal: &[(done.clone(), 1)] };
        let submission = device.submit(QueueKind::Compute, submit).unwrap();
        Self { device, go, done, submission }
    }

    fn finish(&self) {
        self.go.signal(1);
        self.submission.wait(Duration::from_secs(10)).unwrap();
    }
}

fn copy(device: &dyn Device) -> CommandBuffer {
    let buffer = device.create_buffer(&BufferDesc::own("copied", 512)).unwrap();
    let mut encoder: Box<dyn Encoder> = device.create_encoder("copy").unwrap();
    encoder.copy(&buffer.slice(0, 256).unwrap(), &buffer.slice(256, 256).unwrap()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn memory_is_not_lent_again_while_its_submission_runs() {
    let held = Held::new();
    let pool = MemoryPool::new(held.device.clone(), small(), None).unwrap();
    let buffers: Vec<PoolBuffer> = (0..3).map(|_| pool.acquire("step", MB).unwrap()).collect();
    let ids: Vec<u64> = buffers.iter().map(|buffer| buffer.id()).collect();
    pool.release_after(buffers, &held.submission);
    assert_eq!(pool.waiting(), 1, "the device is asked once for all of them");
    let now = pool.statistics();
    assert_eq!((now.live, now.pending, now.total_released), (3, 3, 0));
    let other = pool.acquire("next", MB).unwrap();
    assert!(!ids.contains(&other.id()));
    held.finish();
    let again = pool.acquire("after", MB).unwrap();
    assert!(ids.contains(&again.id()), "the device is done, and was asked");
    assert_eq!((pool.statistics().pending, pool.statistics().total_released), (0, 3));
}

#[test]
fn a_dropped_buffer_waits_for_its_event() {
    let held = Held::new();
    let pool = MemoryPool::new(held.device.clone(), small(), None).unwrap();
    let mut buffer = pool.acquire("step", MB).unwrap();
    let id = buffer.id();
    buffer.keep_until((&held.done, 1));
    drop(buffer);
    assert_eq!(pool.statistics().pending, 1);
    assert_ne!(pool.acquire("next", MB).unwrap().id(), id);
    held.finish();
    pool.poll();
    assert_eq!(pool.statistics().pending, 0);
    let both = (pool.acquire("after", MB).unwrap(), pool.acquire("after", MB).unwrap());
    assert!(both.0.id() == id || both.1.id() == id);
}

#[test]
fn a_failed_submission_is_done_with_its_memory() {
    let held = Held::new();
    let device = &held.device;
    let pool = MemoryPool::new(device.clone(), small(), None).unwrap();
    // Two submissions on one queue use one buffer: the transfer queue's fails while the other one runs.
    let commands = copy(&**device);
    let first = device
        .submit(
            QueueKind::Compute,
            Submit { commands: &commands, wait: &[(held.go.clone(), 1)], signal: &[] },
        )
        .unwrap();
    let event = device.create_event(0).unwrap();
    let clash = Submit { commands: &commands, wait: &[(held.go.clone(), 1)], signal: &[(event.clone(), 1)] };
    let second = device.submit(QueueKind::Transfer, clash).unwrap();
    let mut buffer = pool.acquire("step", MB).unwrap();
    buffer.keep_until((&event, 1));
    let more = pool.acquire("step", MB).unwrap();
    let both = [first.clone(), second.clone()];
    pool.release_after([more], &both[..]);
    drop(buffer);
    assert_eq!(pool.statistics().pending, 2);
    held.finish();
    let _ = (first.wait(Duration::from_secs(10)), second.wait(Duration::from_secs(10)));
    assert_eq!(pool.statistics().pending, 0, "failed or not, both have ended");
}

#[test]
fn a_finished_submission_returns_memory_at_once() {
    let held = Held::new();
    held.finish();
    let pool = MemoryPool::new(held.device.clone(), small(), None).unwrap();
    pool.release_after([pool.acquire("step", MB).unwrap()], &held.submission);
    assert_eq!(pool.waiting(), 0);
    pool.release_after([], &held.submission);
}

#[test]
fn pending_buffers_outlive_a_switch() {
    let held = Held::new();
    let pool = MemoryPool::new(held.device.clone(), small(), None).unwrap();
    pool.release_after([pool.acquire("step", MB).unwrap()], &held.submission);
    pool.set_enabled(false);
    assert_eq!(pool.statistics().bytes_reserved, 64 * MB);
    let direct = pool.acquire("off", MB).unwrap();
    pool.release_after([direct], &held.submission);
    assert_eq!(pool.statistics().pending, 2);
    held.finish();
    pool.poll();
    assert_eq!(pool.statistics().bytes_reserved, 0);
    // Of the device's memory, the submission's own buffer may still be there.
    assert!(held.device.allocated() <= 512);
}

#[test]
fn a_buffer_of_another_pool_goes_home() {
    let held = Held::new();
    let one = MemoryPool::new(held.device.clone(), small(), None).unwrap();
    let other = MemoryPool::new(held.device.clone(), small(), None).unwrap();
    one.release_after([other.acquire("stray", MB).unwrap()], &held.submission);
    assert_eq!((one.statistics().pending, other.statistics().pending), (0, 1));
    assert_eq!((one.waiting(), other.waiting()), (0, 1), "nothing of its own waits in the first");
    held.finish();
    assert!(other.leak_report().is_clean());
    assert_eq!(other.statistics().live, 0);
}

#[test]
fn the_leak_report_names_what_is_out() {
    let held = Held::new();
    let pool = MemoryPool::new(held.device.clone(), small(), None).unwrap();
    let kept = [pool.acquire("attention", MB).unwrap(), pool.acquire("logits", 200 * MB).unwrap()];
    pool.release_after([pool.acquire("pending", MB).unwrap()], &held.submission);
    drop(pool.acquire("returned", MB).unwrap());
    let report = pool.leak_report();
    assert_eq!(report.held, ["attention", "logits"]);
    assert_eq!((report.acquired, report.released, report.live, report.unaccounted), (4, 1, 3, 0));
    assert!(!report.is_clean());
    drop(kept);
    assert!(pool.leak_report().is_clean(), "pending buffers come back by themselves");
    held.finish();
}
