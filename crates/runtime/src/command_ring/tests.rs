//! The ring on the CPU device, whole and under faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_hal::{BufferDesc, Device, DeviceError};

use super::*;
use crate::logged::logged;

const PATIENCE: Duration = Duration::from_secs(20);

/// A device and a command buffer of one copy on it.
fn device() -> (Arc<FaultDevice>, CommandBuffer) {
    let inner = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() });
    let device = FaultDevice::new(inner);
    let buffer = device.create_buffer(&BufferDesc::own("test", 512)).unwrap();
    let mut encoder = device.create_encoder("test").unwrap();
    encoder.copy(&buffer.slice(0, 256).unwrap(), &buffer.slice(256, 256).unwrap()).unwrap();
    (device, encoder.finish().unwrap())
}

fn ring(device: &Arc<FaultDevice>, config: CommandRingConfig) -> CommandRing {
    CommandRing::new(device.clone(), config, true).unwrap()
}

fn small(max_wait_ms: u64) -> CommandRingConfig {
    CommandRingConfig { ring_size: 2, max_wait_ms, ..CommandRingConfig::default() }
}

fn work(commands: &CommandBuffer) -> RingWork<'_> {
    RingWork { commands, wait: &[], signal: &[], reused: false }
}

/// Work that starts when the event is raised.
fn held<'a>(commands: &'a CommandBuffer, go: &'a [(Event, u64)]) -> RingWork<'a> {
    RingWork { wait: go, ..work(commands) }
}

#[test]
fn each_wait_is_told_with_its_time() {
    let (device, commands) = device();
    let ring = ring(&device, small(100));
    let go = [(device.create_event(0).unwrap(), 1)];
    let both = [ring.submit(held(&commands, &go)).unwrap(), ring.submit(held(&commands, &go)).unwrap()];
    assert_eq!(ring.waits().count, 0);
    let third = ring.submit(work(&commands)).unwrap();
    let waits = ring.waits();
    assert_eq!((waits.count, ring.get_statistics().wait_events), (1, 1));
    assert!(waits.sum >= 0.1 && waits.buckets.iter().all(|(_, count)| *count == 0), "{waits:?}");
    go[0].0.signal(1);
    for submission in both.into_iter().chain([third]) {
        submission.wait(PATIENCE).unwrap();
    }
    ring.reset_statistics();
    assert_eq!((ring.waits().count, ring.get_statistics().wait_events), (1, 0), "no series goes back");
}

#[test]
fn submissions_are_in_flight_together() {
    let (device, commands) = device();
    let ring = ring(&device, small(0));
    let go = [(device.create_event(0).unwrap(), 1)];
    let both = [ring.submit(held(&commands, &go)).unwrap(), ring.submit(held(&commands, &go)).unwrap()];
    let now = ring.get_statistics();
    assert_eq!((now.in_flight, now.available_count, now.total_completed), (2, 0, 0));
    go[0].0.signal(1);
    for submission in both {
        submission.wait(PATIENCE).unwrap();
    }
    let then = ring.get_statistics();
    assert_eq!((then.in_flight, then.available_count, then.total_completed), (0, 2, 2));
    assert_eq!((then.total_acquired, then.total_submitted, then.wait_events), (2, 2, 0));
}

#[test]
fn a_full_ring_waits_for_its_oldest() {
    let (device, commands) = device();
    // With a limit, so that a failure here does not wait for ever.
    let ring = ring(&device, small(10_000));
    let go = [(device.create_event(0).unwrap(), 1)];
    let first = ring.submit(held(&commands, &go)).unwrap();
    ring.submit(work(&commands)).unwrap();
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let third = scope.spawn(|| {
            begun.store(true, Ordering::SeqCst);
            ring.submit(work(&commands)).unwrap()
        });
        while !begun.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(!third.is_finished(), "it waits");
        assert_eq!(ring.get_statistics().in_flight, 2);
        go[0].0.signal(1);
        third.join().unwrap().wait(PATIENCE).unwrap();
    });
    assert!(first.poll().unwrap().is_ok());
    let now = ring.get_statistics();
    assert_eq!((now.wait_events, now.timeout_events, now.exhaustion_events), (1, 0, 0));
    assert!(now.max_wait_ms > 20.0 && (now.avg_wait_ms - now.max_wait_ms).abs() < 1e-6, "{now:?}");
}

#[test]
fn whoever_waited_too_long_goes_ahead_and_that_is_bounded() {
    let (device, commands) = device();
    let ring = ring(&device, small(100));
    let go = [(device.create_event(0).unwrap(), 1)];
    for _ in 0..2 {
        ring.submit(held(&commands, &go)).unwrap();
    }
    let beyond = ring.submit(work(&commands)).unwrap();
    let now = ring.get_statistics();
    assert_eq!((now.timeout_events, now.exhaustion_events, now.in_flight, now.available_count), (1, 1, 3, 0));
    for _ in 3..8 {
        ring.submit(work(&commands)).unwrap();
    }
    let error = ring.submit(work(&commands)).unwrap_err().to_string();
    assert!(error.contains("100 ms") && error.contains("command ring"), "{error}");
    go[0].0.signal(1);
    beyond.wait(PATIENCE).unwrap();
    ring.wait_for_all(PATIENCE).unwrap();
    ring.submit(work(&commands)).unwrap().wait(PATIENCE).unwrap();
}

#[test]
fn a_ring_that_does_not_wait_goes_ahead_at_once() {
    let (device, commands) = device();
    let ring = ring(&device, CommandRingConfig { wait_on_full_ring: false, ..small(0) });
    let go = [(device.create_event(0).unwrap(), 1)];
    for _ in 0..4 {
        ring.submit(held(&commands, &go)).unwrap();
    }
    let now = ring.get_statistics();
    assert_eq!((now.exhaustion_events, now.wait_events, now.in_flight), (2, 0, 4));
    go[0].0.signal(1);
    ring.wait_for_all(PATIENCE).unwrap();
}

#[test]
fn the_plain_path_returns_when_the_device_is_done() {
    let (device, commands) = device();
    let ring = ring(&device, small(0));
    ring.set_enabled(false);
    assert!(!ring.is_enabled());
    for reused in [false, true, true] {
        let submission = ring.submit(RingWork { reused, ..work(&commands) }).unwrap();
        assert!(submission.poll().is_some_and(|outcome| outcome.is_ok()), "it is done");
    }
    let now = ring.get_statistics();
    assert_eq!((now.wait_events, now.in_flight, now.total_completed), (3, 0, 3));
    assert!((now.reuse_rate - 2.0 / 3.0).abs() < 1e-9);
    device.next(Fault::FailureBefore);
    assert!(ring.submit(work(&commands)).unwrap_err().to_string().contains(bessemer_hal::fault::INJECTED));
    assert_eq!(ring.get_statistics().total_failed, 1);
}

#[test]
fn switching_leaves_what_is_in_flight() {
    let (device, commands) = device();
    let ring = ring(&device, small(0));
    let go = [(device.create_event(0).unwrap(), 1)];
    let before = ring.submit(held(&commands, &go)).unwrap();
    ring.set_enabled(false);
    assert_eq!(ring.get_statistics().in_flight, 1);
    go[0].0.signal(1);
    // On one queue: it is done only after the one before it.
    ring.submit(work(&commands)).unwrap();
    assert!(before.poll().is_some());
    ring.set_enabled(true);
    ring.submit(work(&commands)).unwrap().wait(PATIENCE).unwrap();
}

#[test]
fn a_slot_that_is_not_used_comes_back() {
    let (device, commands) = device();
    let ring = ring(&device, small(100));
    let slots = [ring.acquire_next().unwrap(), ring.acquire_next().unwrap()];
    assert_eq!(ring.get_statistics().available_count, 0);
    drop(slots);
    assert_eq!(ring.get_statistics().available_count, 2);
    // A refused submission gives its slot back too.
    device.lose("as ordered by the test");
    assert!(matches!(ring.submit(work(&commands)), Err(DeviceError::Lost(_))));
    assert_eq!((ring.get_statistics().available_count, ring.get_statistics().total_submitted), (2, 0));
}

#[test]
fn held_slots_are_waited_for_no_longer_than_told() {
    let (device, commands) = device();
    let ring = ring(&device, small(100));
    let held = [ring.acquire_next().unwrap(), ring.acquire_next().unwrap()];
    ring.submit(work(&commands)).unwrap().wait(PATIENCE).unwrap();
    let now = ring.get_statistics();
    assert_eq!((now.wait_events, now.timeout_events, now.exhaustion_events), (1, 1, 1));
    assert!(now.max_wait_ms >= 100.0, "{now:?}");
    drop(held);
    ring.submit(work(&commands)).unwrap();
    assert_eq!(ring.get_statistics().exhaustion_events, 1);
}

#[test]
fn going_beyond_the_ring_is_logged_or_not() {
    let beyond = |log_ring_exhaustion, times| {
        let (device, _) = device();
        let config = CommandRingConfig { log_ring_exhaustion, wait_on_full_ring: false, ..small(0) };
        let ring = ring(&device, config);
        let slots: Vec<_> = (0..times).map(|_| ring.acquire_next().unwrap()).collect();
        assert_eq!(ring.get_statistics().total_acquired, slots.len() as u64);
    };
    let lines = logged(|| beyond(true, 3));
    assert!(
        lines.len() == 1 && lines[0].contains("ring is full") && lines[0].contains("ring_size=2"),
        "{lines:?}"
    );
    assert!(logged(|| beyond(true, 2)).is_empty());
    assert!(logged(|| beyond(false, 3)).is_empty());
}

#[test]
fn events_order_work_through_the_ring() {
    let (device, commands) = device();
    let ring = ring(&device, CommandRingConfig::default());
    let done = device.create_event(0).unwrap();
    let (first, second) = ([(done.clone(), 1)], [(done.clone(), 2)]);
    ring.submit(RingWork { signal: &first, ..work(&commands) }).unwrap();
    ring.submit(RingWork { wait: &first, signal: &second, ..work(&commands) }).unwrap();
    done.wait(2, PATIENCE).unwrap();
}

#[test]
fn failures_stay_with_their_submission_and_the_ring_goes_on() {
    let (device, commands) = device();
    let ring = ring(&device, small(0));
    device.next(Fault::FailureAfter);
    let failed = ring.submit(work(&commands)).unwrap();
    assert!(failed.wait(PATIENCE).is_err());
    ring.submit(work(&commands)).unwrap().wait(PATIENCE).unwrap();
    let now = ring.get_statistics();
    assert_eq!((now.total_failed, now.total_completed, now.in_flight), (1, 2, 0));
}

#[test]
fn waiting_for_all_can_run_out_of_time() {
    let (device, commands) = device();
    let ring = ring(&device, small(0));
    let go = [(device.create_event(0).unwrap(), 1)];
    ring.submit(held(&commands, &go)).unwrap();
    let error = ring.wait_for_all(Duration::from_millis(30)).unwrap_err();
    assert!(matches!(error, DeviceError::Timeout { .. }));
    go[0].0.signal(1);
    ring.wait_for_all(PATIENCE).unwrap();
    assert_eq!(ring.get_statistics().in_flight, 0);
}

#[test]
fn other_settings_count_from_the_next_submission_on() {
    let (device, commands) = device();
    let ring = ring(&device, small(0));
    assert!(ring.reconfigure(CommandRingConfig { ring_size: 1, ..small(0) }).is_err());
    assert_eq!(ring.config().ring_size, 2);
    ring.reconfigure(CommandRingConfig { ring_size: 4, ..small(0) }).unwrap();
    let go = [(device.create_event(0).unwrap(), 1)];
    for _ in 0..4 {
        ring.submit(held(&commands, &go)).unwrap();
    }
    assert_eq!((ring.get_statistics().in_flight, ring.get_statistics().exhaustion_events), (4, 0));
    go[0].0.signal(1);
    ring.wait_for_all(PATIENCE).unwrap();
}

#[test]
fn counting_can_be_off_and_starts_anew() {
    let (device, commands) = device();
    let ring = ring(&device, CommandRingConfig { track_statistics: false, ..small(0) });
    ring.submit(work(&commands)).unwrap().wait(PATIENCE).unwrap();
    let now = ring.get_statistics();
    assert_eq!((now.total_acquired, now.total_submitted, now.total_completed), (0, 0, 0));
    assert_eq!((now.ring_size, now.available_count), (2, 2));
    ring.reconfigure(small(0)).unwrap();
    ring.submit(work(&commands)).unwrap().wait(PATIENCE).unwrap();
    let now = ring.get_statistics();
    assert_eq!(now.total_completed, 1);
    assert!(now.busy_ns <= now.span_ns && now.gpu_utilization() > 0.0, "{now:?}");
    ring.reset_statistics();
    assert_eq!(ring.get_statistics().total_submitted, 0);
}

#[test]
fn counting_anew_keeps_what_is_under_way() {
    let (device, commands) = device();
    let ring = ring(&device, small(0));
    let go = [(device.create_event(0).unwrap(), 1)];
    ring.submit(held(&commands, &go)).unwrap();
    let slot = ring.acquire_next().unwrap();
    ring.reset_statistics();
    let now = ring.get_statistics();
    assert_eq!((now.total_acquired, now.total_submitted, now.total_completed), (2, 1, 0));
    slot.submit(RingWork { reused: true, ..work(&commands) }).unwrap();
    go[0].0.signal(1);
    ring.wait_for_all(Duration::MAX).unwrap();
    let now = ring.get_statistics();
    assert_eq!((now.total_acquired, now.total_submitted, now.total_completed), (2, 2, 2));
    assert_eq!(now.reuse_rate, 1.0, "of those that are counted");
}

/// Several threads, random failures: never more in flight than the ring has slots and those beyond, nobody lost.
#[test]
fn many_threads_and_faults() {
    let (device, commands) = device();
    let ring =
        ring(&device, CommandRingConfig { ring_size: 3, max_wait_ms: 0, ..CommandRingConfig::default() });
    let plan = FaultPlan::new(7)
        .with(Fault::FailureBefore, 0.1)
        .with(Fault::FailureAfter, 0.1)
        .with(Fault::SubmissionTimeout, 0.02)
        .with_timeout(Duration::from_millis(5));
    device.arm(plan);
    let (mut fine, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let outcomes = (0..60).map(|_| {
                        let submission = ring.submit(work(&commands)).unwrap();
                        assert!(ring.get_statistics().in_flight <= 3);
                        submission.wait(PATIENCE).is_ok()
                    });
                    outcomes.filter(|fine| *fine).count()
                })
            })
            .collect();
        for thread in threads {
            let count = thread.join().unwrap();
            fine += count;
            failed += 60 - count;
        }
    });
    device.disarm();
    ring.wait_for_all(PATIENCE).unwrap();
    let now = ring.get_statistics();
    assert_eq!((now.total_submitted, now.total_completed, now.in_flight), (240, 240, 0));
    assert_eq!(now.total_failed, failed as u64);
    assert!(failed > 10 && fine > 100, "{fine} fine, {failed} failed");
}
