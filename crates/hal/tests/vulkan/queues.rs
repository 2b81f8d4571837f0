//! Order, events, and the end of a device.

use std::time::{Duration, Instant};

use bessemer_hal::*;

use crate::support::*;

#[test]
fn one_queue_keeps_the_order_of_submission() {
    let Some(device) = device() else { return };
    let scales = pipeline(&*device, "scale", SCALE);
    let (a, b) = (buffer(&*device, &[1; 100]), buffer(&*device, &[0; 100]));
    let step = |factor| {
        record(&*device, "step", |e| {
            e.dispatch(&scaling(&scales, &a.whole(), &b.whole(), factor)).unwrap();
            e.barrier();
            e.copy(&b.whole(), &a.whole()).unwrap();
        })
    };
    let steps: Vec<_> = [3, 5, 7].into_iter().map(step).collect();
    let mut expected = 1_u32;
    let mut last = None;
    // More than a queue holds.
    for i in 0..2000 {
        let factor = [3, 5, 7][i % 3];
        expected = expected.wrapping_mul(factor).wrapping_add(1);
        last = Some(device.submit(QueueKind::Compute, Submit::new(&steps[i % 3])).unwrap());
    }
    last.unwrap().wait(LONG).unwrap();
    assert_eq!(get(&*device, &a), [expected; 100]);
}

#[test]
fn an_upload_on_the_transfer_queue_comes_before_the_compute_that_waits_for_it() {
    let Some(device) = device() else { return };
    let scales = pipeline(&*device, "scale", SCALE);
    let (staging, input, out, back) = (
        buffer(&*device, &[0; 1000]),
        buffer(&*device, &[0; 1000]),
        buffer(&*device, &[0; 1000]),
        buffer(&*device, &[0; 1000]),
    );
    let upload = record(&*device, "upload", |e| e.copy(&staging.whole(), &input.whole()).unwrap());
    let compute = record(&*device, "compute", |e| {
        e.dispatch(&scaling(&scales, &input.whole(), &out.whole(), 2)).unwrap();
    });
    let download = record(&*device, "download", |e| e.copy(&out.whole(), &back.whole()).unwrap());
    let (uploaded, computed) = (device.create_event(0).unwrap(), device.create_event(0).unwrap());
    let free = device.create_event(0).unwrap();
    for step in 1..100 {
        put(&*device, &staging, &[step as u32; 1000]);
        // Submitted in the order that is wrong without events.
        let compute = Submit {
            wait: &[(uploaded.clone(), step)],
            signal: &[(computed.clone(), step)],
            ..Submit::new(&compute)
        };
        device.submit(QueueKind::Compute, compute).unwrap();
        let upload = Submit {
            wait: &[(free.clone(), step - 1)],
            signal: &[(uploaded.clone(), step)],
            ..Submit::new(&upload)
        };
        device.submit(QueueKind::Transfer, upload).unwrap();
        let download = Submit {
            wait: &[(computed.clone(), step)],
            signal: &[(free.clone(), step)],
            ..Submit::new(&download)
        };
        device.submit(QueueKind::Transfer, download).unwrap();
        free.wait(step, LONG).unwrap();
        assert_eq!(get(&*device, &back), [step as u32 * 2 + 1; 1000]);
    }
}

#[test]
fn a_submission_waits_for_the_host() {
    let Some(device) = device() else { return };
    let increments = pipeline(&*device, "increment", INCREMENT);
    let x = buffer(&*device, &[0; 8]);
    let commands = record(&*device, "waits", |e| e.dispatch(&incrementing(&increments, &x.whole())).unwrap());
    let (go, done) = (device.create_event(4).unwrap(), device.create_event(0).unwrap());
    let submit = Submit { wait: &[(go.clone(), 5)], signal: &[(done.clone(), 1)], ..Submit::new(&commands) };
    let submission = device.submit(QueueKind::Compute, submit).unwrap();
    assert!(matches!(submission.wait(SHORT), Err(DeviceError::Timeout { millis: 20, .. })));
    assert!(matches!(done.wait(1, SHORT), Err(DeviceError::Timeout { millis: 20, .. })));
    assert_eq!(submission.poll(), None);
    // In use: not to be written, nor read, since it will be written.
    assert!(usage(device.write(&x.whole(), &[0; 32])).contains("'waits'"));
    assert!(usage(device.read(&x.slice(0, 4).unwrap(), &mut [0; 4])).contains("'waits'"));
    go.signal(4);
    assert!(submission.wait(SHORT).is_err());
    go.signal(9);
    submission.wait(LONG).unwrap();
    done.wait(1, LONG).unwrap();
    assert_eq!((done.value(), go.value()), (Ok(1), Ok(9)));
    assert_eq!(get(&*device, &x), [1; 8]);
}

#[test]
fn a_wait_runs_out_while_the_gpu_works() {
    let Some(device) = device() else { return };
    let slows = pipeline(&*device, "slow", SLOW);
    let x = buffer(&*device, &[0]);
    let done = device.create_event(0).unwrap();
    let short = Duration::from_millis(5);
    // As many launches as take longer than the waits, on this GPU and as busy as this machine is.
    let mut launches = 1;
    let submission = loop {
        let commands = record(&*device, "slow", |e| {
            for _ in 0..launches {
                e.dispatch(&slow(&slows, &x.whole(), 100)).unwrap();
                e.barrier();
            }
        });
        let value = [(done.clone(), launches)];
        let submission =
            device.submit(QueueKind::Compute, Submit { signal: &value, ..Submit::new(&commands) }).unwrap();
        let begin = Instant::now();
        let waits = (submission.wait(short).map(drop), done.wait(launches, short));
        if let (Err(DeviceError::Timeout { millis: 5, .. }), Err(DeviceError::Timeout { millis: 5, .. })) =
            waits
        {
            assert!(begin.elapsed() >= 2 * short);
            break submission;
        }
        assert!(launches < 1 << 20, "{waits:?}");
        launches *= 2;
    };
    done.wait(launches, LONG).unwrap();
    assert!(matches!(submission.poll(), Some(Ok(_))), "the event came first");
}

#[test]
fn bytes_that_pending_work_reads_may_be_read_but_not_written() {
    let Some(device) = device() else { return };
    let (x, y) = (buffer(&*device, &[3; 8]), buffer(&*device, &[0; 8]));
    let go = device.create_event(0).unwrap();
    let commands = record(&*device, "copy", |e| {
        e.copy(&x.slice(0, 16).unwrap(), &y.slice(0, 16).unwrap()).unwrap();
    });
    let submit = Submit { wait: &[(go.clone(), 1)], ..Submit::new(&commands) };
    let submission = device.submit(QueueKind::Transfer, submit).unwrap();
    assert_eq!(get(&*device, &x), [3; 8]);
    usage(device.write(&x.slice(12, 8).unwrap(), &[0; 8]));
    usage(device.read(&y.whole(), &mut [0; 32]));
    // The other half of both buffers is nobody's.
    device.write(&x.slice(16, 16).unwrap(), &[0; 16]).unwrap();
    device.read(&y.slice(16, 16).unwrap(), &mut [0; 16]).unwrap();
    go.signal(1);
    submission.wait(LONG).unwrap();
    device.write(&x.whole(), &[0; 32]).unwrap();
    assert_eq!(get(&*device, &y), [3, 3, 3, 3, 0, 0, 0, 0]);
}

#[test]
fn a_failed_value_fails_whoever_waits_for_it() {
    let Some(device) = device() else { return };
    let copies = record(&*device, "copies", |e| e.barrier());
    // A device that is dropped while it holds a submission fails the values that this owed.
    let other = cpu::CpuDevice::new(&cpu::CpuOptions { threads: Some(1), memory_budget: Some(1 << 20) });
    let (event, chained, never) =
        (device.create_event(2).unwrap(), device.create_event(0).unwrap(), other.create_event(0).unwrap());
    let owing = record(&*other, "owing", |_| {});
    let submit = Submit { wait: &[(never.clone(), 1)], signal: &[(event.clone(), 5)], ..Submit::new(&owing) };
    other.submit(QueueKind::Compute, submit).unwrap();
    // One waits before the failure, one comes after it.
    let follow =
        Submit { wait: &[(event.clone(), 4)], signal: &[(chained.clone(), 3)], ..Submit::new(&copies) };
    let early = device.submit(QueueKind::Transfer, follow).unwrap();
    assert_eq!(early.poll(), None);
    drop(other);
    let failed = early.wait(LONG).unwrap_err();
    assert!(matches!(failed, DeviceError::Lost(_)));
    let late = device.submit(QueueKind::Compute, follow).unwrap();
    assert_eq!(late.wait(LONG), Err(failed.clone()));
    assert_eq!(chained.wait(1, LONG), Err(failed.clone()));
    // What was reached stays reached, what was owed is failed, what lies above is open.
    event.wait(2, LONG).unwrap();
    assert_eq!((event.value(), event.wait(5, LONG)), (Err(failed.clone()), Err(failed.clone())));
    assert!(matches!(event.wait(6, SHORT / 10), Err(DeviceError::Timeout { .. })));
    let later = Submit { signal: &[(event.clone(), 6)], ..Submit::new(&copies) };
    device.submit(QueueKind::Compute, later).unwrap().wait(LONG).unwrap();
    event.wait(6, LONG).unwrap();
    assert_eq!((event.value(), event.wait(5, LONG)), (Ok(6), Err(failed)));
}

#[test]
fn dropping_a_device_ends_pending_work() {
    for round in 0..4 {
        let Some(device) = device() else { return };
        let slows = pipeline(&*device, "slow", SLOW);
        let x = buffer(&*device, &[0]);
        let commands = record(&*device, "slow", |e| e.dispatch(&slow(&slows, &x.whole(), 50)).unwrap());
        let copies = record(&*device, "copies", |e| e.barrier());
        let (never, done) = (device.create_event(0).unwrap(), device.create_event(0).unwrap());
        let running = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
        let submit =
            Submit { wait: &[(never.clone(), 1)], signal: &[(done.clone(), 1)], ..Submit::new(&commands) };
        let queued = device.submit(QueueKind::Compute, submit).unwrap();
        let submit = Submit { wait: &[(never.clone(), 1)], ..Submit::new(&copies) };
        let stuck = device.submit(QueueKind::Transfer, submit).unwrap();
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
        let before = Instant::now();
        drop(device);
        assert!(before.elapsed() < Duration::from_secs(20));
        // Nothing is left open: each is done or lost.
        assert!(matches!(running.poll(), Some(Ok(_))), "{running:?}");
        assert!(matches!(queued.poll(), Some(Err(DeviceError::Lost(_)))), "{queued:?}");
        assert!(matches!(stuck.poll(), Some(Err(DeviceError::Lost(_)))), "{stuck:?}");
        assert!(matches!(done.wait(1, LONG), Err(DeviceError::Lost(_))));
        drop((x, commands));
    }
}
