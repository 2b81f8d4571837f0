//! Statistics are what happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bessemer_hal::cpu::Invocation;
use bessemer_hal::*;

use super::support::*;

static RUNNING: AtomicBool = AtomicBool::new(false);
static MAY_END: AtomicBool = AtomicBool::new(false);

/// Runs until it is told to end.
fn hold(_: &mut Invocation<'_>) {
    RUNNING.store(true, Ordering::SeqCst);
    while !MAY_END.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn overlap_is_what_the_clock_of_the_device_says() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |_| ());
    let pipeline =
        rig.device.create_pipeline(&PipelineDesc { label: "hold", code: Code::Cpu(hold) }).unwrap();
    let tiling = Tiling::whole(1, 1);
    let bindings = vec![Binding::write(rig.buffer(4), tiling)];
    let mut encoder = rig.device.create_encoder("hold").unwrap();
    encoder.dispatch(&Dispatch { pipeline, bindings, params: vec![], groups: tiling.grid() }).unwrap();
    let commands = encoder.finish().unwrap();
    let slice = rig.buffer(900_000);
    let send = || {
        let ticket = queue.upload(&slice, &noise(1, 900_000), None).unwrap();
        queue.wait_for_completion(&ticket, LONG).unwrap();
    };
    let compute = rig.device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
    while !RUNNING.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    send();
    assert_eq!(queue.get_metrics().total_overlap_ms, 0.0, "nothing is told of compute yet");
    MAY_END.store(true, Ordering::SeqCst);
    let timing = compute.wait(LONG).unwrap();
    queue.note_compute(timing);
    let metrics = queue.get_metrics();
    assert_eq!(metrics.overlap_ratio, 1.0, "all of the transfer was beside compute");
    assert!(metrics.total_overlap_ms > 0.0);
    let overlap = metrics.total_overlap_ms;
    assert!(overlap <= (timing.end_ns - timing.start_ns) as f64 / 1e6);
    assert!(overlap <= metrics.avg_upload_ms * 1.000_001, "{metrics:?}");
    // One after the compute has the device for itself.
    send();
    let metrics = queue.get_metrics();
    assert_eq!(metrics.total_overlap_ms, overlap);
    assert!(metrics.overlap_ratio > 0.0 && metrics.overlap_ratio < 1.0);
}

#[test]
fn without_timing_there_are_counts_and_no_times() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |config| config.track_timing = false);
    let slice = rig.buffer(100_000);
    let ticket = queue.upload(&slice, &noise(1, 100_000), None).unwrap();
    queue.wait_for_completion(&ticket, LONG).unwrap();
    queue.note_compute(Timing { start_ns: 0, end_ns: u64::MAX });
    let metrics = queue.get_metrics();
    assert_eq!((metrics.total_uploads, metrics.bytes_up), (1, 100_000));
    assert_eq!((metrics.avg_upload_ms, metrics.total_overlap_ms, metrics.overlap_ratio), (0.0, 0.0, 0.0));
}

#[test]
fn slow_operations_are_counted_where_they_are_asked_for() {
    for asked in [true, false] {
        let device = Odd::new(cpu(), true, true);
        let queue = queue(&(device.clone() as Arc<dyn Device>), |config| {
            (config.log_slow_operations, config.verbose_logging) = (asked, true);
        });
        let slice = buffer(&*device, 10);
        let is_counted = || {
            let before = queue.get_metrics().slow_operations;
            queue.upload(&slice, &[1; 10], None).unwrap();
            queue.get_metrics().slow_operations != before
        };
        // On a busy machine one or the other takes long.
        assert!((0..100).any(|_| !is_counted()));
        device.slow_writes.store(true, Ordering::SeqCst);
        assert_eq!(is_counted(), asked);
        let metrics = queue.get_metrics();
        let sum = metrics.avg_upload_ms * metrics.total_uploads as f64;
        assert!(sum >= 15.0, "{metrics:?}");
    }
}
