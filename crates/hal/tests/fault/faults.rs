//! Each fault by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_hal::fault::{Call, Fault, FaultDevice, FaultPlan, INJECTED};
use bessemer_hal::noop::NoopDevice;
use bessemer_hal::*;

use crate::kernels::*;
use crate::support::*;

const QUEUES: [QueueKind; 2] = [QueueKind::Compute, QueueKind::Transfer];

#[test]
fn memory_is_refused_where_it_was_asked_for() {
    each(|inner| {
        let device = FaultDevice::new(inner);
        let before = device.allocated();
        device.next(Fault::HeapMemory);
        let own = device.create_buffer(&BufferDesc::own("kept", 1024)).unwrap();
        let heap = HeapDesc { label: "cache", size: 4096 };
        let Err(DeviceError::OutOfMemory { what, requested: 4096, available }) = device.create_heap(&heap)
        else {
            panic!("the heap was not refused")
        };
        assert!(what.contains("'cache'") && what.contains(INJECTED), "{what}");
        assert!(available > 4096);
        let heap = device.create_heap(&heap).unwrap();
        device.next(Fault::BufferMemory);
        let placed = BufferDesc { label: "slot", size: 256, place: Place::Heap(&heap, 0) };
        let refused = device.create_buffer(&placed).unwrap_err();
        assert!(matches!(refused, DeviceError::OutOfMemory { requested: 256, .. }), "{refused}");
        let placed = device.create_buffer(&placed).unwrap();
        // Memory for staging may be refused like any other.
        device.next(Fault::BufferMemory);
        let staged = BufferDesc::staging("ring", 512);
        let refused = device.create_buffer(&staged).unwrap_err();
        assert!(matches!(refused, DeviceError::OutOfMemory { requested: 512, .. }), "{refused}");
        let staged = device.create_buffer(&staged).unwrap();
        assert_eq!((injected(&device, Fault::HeapMemory), injected(&device, Fault::BufferMemory)), (1, 2));
        assert_eq!(device.statistics().calls(Call::CreateBuffer), 5);
        drop((own, heap, placed, staged));
        settles_at(&*device, before);
    });
}

#[test]
fn host_accesses_fail_and_touch_nothing() {
    each(|inner| {
        let device = FaultDevice::new(inner);
        let x = buffer(&*device, &[7; 4]);
        device.next(Fault::WriteFailure);
        let Err(DeviceError::Submission { label, reason }) = device.write(&x.whole(), &[0; 16]) else {
            panic!("the write did not fail")
        };
        assert_eq!((label.as_str(), reason.as_str()), ("write of buffer 'values'", INJECTED));
        device.next(Fault::ReadFailure);
        let mut data = [9; 16];
        let failed = device.read(&x.whole(), &mut data).unwrap_err();
        assert!(
            matches!(&failed, DeviceError::Submission { label, .. } if label == "read of buffer 'values'")
        );
        assert_eq!(data, [9; 16]);
        assert_eq!(get(&*device, &x), [7; 4]);
    });
}

#[test]
fn a_write_arrives_changed_in_a_few_bytes() {
    each(|inner| {
        let device = FaultDevice::new(inner);
        for seed in 0..20 {
            device.arm(FaultPlan::new(seed).with(Fault::WriteCorruption, 1.0));
            for size in [1, 3, 64] {
                let x = device.create_buffer(&BufferDesc::own("x", size)).unwrap();
                let data: Vec<u8> = (0..size as u8).collect();
                device.write(&x.whole(), &data).unwrap();
                let (first, last) = difference(&data, &bytes(&*device, &x)).unwrap();
                assert!(last - first < 4, "{first} to {last}");
            }
            // There is nothing to change, so it is no fault.
            let empty = device.create_buffer(&BufferDesc::own("empty", 0)).unwrap();
            device.write(&empty.whole(), &[]).unwrap();
        }
        assert_eq!(injected(&device, Fault::WriteCorruption), 60);
        // A write that is refused for a reason of its own is not counted.
        let x = buffer(&*device, &[0]);
        let before = injected(&device, Fault::WriteCorruption);
        assert!(usage(device.write(&x.whole(), &[1])).contains("lengths"));
        assert_eq!(injected(&device, Fault::WriteCorruption), before);
    });
}

#[test]
fn recording_is_refused_at_its_start_and_at_its_end() {
    each(|inner| {
        let device = FaultDevice::new(inner);
        let (x, y) = (buffer(&*device, &[1; 8]), buffer(&*device, &[0; 8]));
        device.next(Fault::FinishMemory);
        device.next(Fault::EncoderMemory);
        let Err(DeviceError::OutOfMemory { what, .. }) = device.create_encoder("step") else {
            panic!("recording began")
        };
        assert!(what.contains("'step'") && what.contains(INJECTED), "{what}");
        let mut encoder = device.create_encoder("step").unwrap();
        encoder.copy(&x.whole(), &y.whole()).unwrap();
        assert!(matches!(encoder.finish(), Err(DeviceError::OutOfMemory { .. })));
        let commands = copying(&*device, "step", &x, &y);
        run(&*device, &commands).unwrap();
        assert_eq!(get(&*device, &y), [1; 8]);
    });
}

#[test]
fn a_submission_that_times_out_holds_back_what_waits_for_it_and_succeeds_later() {
    each(|inner| {
        for queue in QUEUES {
            let device = FaultDevice::new(inner.clone());
            let timeout = Duration::from_millis(200);
            device.arm(FaultPlan::new(1).with_timeout(timeout));
            let [x, y, z] = [3, 0, 0].map(|v| buffer(&*device, &[v; 16]));
            let (upload, step) = (copying(&*device, "upload", &x, &y), copying(&*device, "step", &y, &z));
            let arrived = device.create_event(0).unwrap();
            let begin = Instant::now();
            device.next(Fault::SubmissionTimeout);
            let late = raising(&*device, queue, &upload, &arrived, 1);
            let follower = awaiting(&*device, QueueKind::Compute, &step, &arrived, 1);
            // On a busy machine the time may be over before it is looked at.
            let early = |holds: bool| assert!(holds || begin.elapsed() >= timeout);
            early(matches!(late.wait(SHORT), Err(DeviceError::Timeout { millis: 20, .. })));
            early(matches!(arrived.wait(1, SHORT), Err(DeviceError::Timeout { .. })));
            early((late.poll(), follower.poll(), arrived.value()) == (None, None, Ok(0)));
            // Its bytes are in use as long as it is late.
            let written = device.write(&x.whole(), &[0; 64]);
            early(matches!(written, Err(DeviceError::Usage(rule)) if rule.contains("'upload'")));
            follower.wait(LONG).unwrap();
            late.wait(LONG).unwrap();
            assert!(begin.elapsed() >= timeout);
            assert_eq!(get(&*device, &z), [3; 16]);
            assert_eq!(injected(&device, Fault::SubmissionTimeout), 1);
        }
    });
}

#[test]
fn transfers_come_late_and_in_order() {
    each(|inner| {
        let device = FaultDevice::new(inner);
        let delay = Duration::from_millis(8);
        device.arm(FaultPlan::new(4).with(Fault::TransferDelay, 1.0).with_delay(delay));
        let (x, y) = (buffer(&*device, &[0; 16]), buffer(&*device, &[0; 16]));
        let upload = copying(&*device, "upload", &x, &y);
        let arrived = device.create_event(0).unwrap();
        let all: Vec<_> =
            (1..=20).map(|value| raising(&*device, QueueKind::Transfer, &upload, &arrived, value)).collect();
        let times: Vec<_> = all.iter().map(|s| s.wait(LONG).unwrap()).collect();
        assert!(times.windows(2).all(|w| w[0].end_ns <= w[1].start_ns), "{times:?}");
        assert_eq!(arrived.value(), Ok(20));
        assert_eq!(injected(&device, Fault::TransferDelay), 20);
        // Only transfers are.
        run(&*device, &upload).unwrap();
        assert_eq!(injected(&device, Fault::TransferDelay), 20);
    });
}

#[test]
fn a_transfer_arrives_changed_before_anything_sees_it() {
    each(|inner| {
        let device = FaultDevice::new(inner);
        let before = device.allocated();
        device.arm(FaultPlan::new(2).with(Fault::TransferCorruption, 1.0));
        let (x, y, z) = (buffer(&*device, &[5; 64]), buffer(&*device, &[0; 64]), buffer(&*device, &[0; 64]));
        let (upload, step) = (copying(&*device, "upload", &x, &y), copying(&*device, "step", &y, &z));
        let arrived = device.create_event(0).unwrap();
        for value in 1..=10 {
            let transfer = raising(&*device, QueueKind::Transfer, &upload, &arrived, value);
            awaiting(&*device, QueueKind::Compute, &step, &arrived, value).wait(LONG).unwrap();
            transfer.wait(LONG).unwrap();
            let (sent, seen) = (bytes(&*device, &x), bytes(&*device, &z));
            let (first, last) = difference(&sent, &seen).unwrap();
            assert!(last - first < 16, "{first} to {last}");
            assert_eq!(seen, bytes(&*device, &y));
        }
        // What reads the bytes in the same submission sees them changed, too; a copy from elsewhere does not.
        let w = buffer(&*device, &[5; 64]);
        let relay = record(&*device, "relay", |e| {
            e.copy(&x.whole(), &y.whole()).unwrap();
            e.barrier();
            e.copy(&y.whole(), &z.whole()).unwrap();
            e.copy(&x.whole(), &w.whole()).unwrap();
        });
        let mut damaged = [0; 3];
        for _ in 0..30 {
            device.submit(QueueKind::Transfer, Submit::new(&relay)).unwrap().wait(LONG).unwrap();
            let whole = [&y, &z, &w].map(|place| get(&*device, place) == [5; 64]);
            match whole {
                [false, false, true] => damaged[0] += 1,
                [true, false, true] => damaged[1] += 1,
                [true, true, false] => damaged[2] += 1,
                _ => panic!("one copy goes wrong: {whole:?}"),
            }
        }
        assert!(damaged.iter().all(|times| *times > 0), "{damaged:?}");
        // Without copies there is nothing to change.
        let empty = record(&*device, "empty", |e| e.barrier());
        device.submit(QueueKind::Transfer, Submit::new(&empty)).unwrap().wait(LONG).unwrap();
        assert_eq!(injected(&device, Fault::TransferCorruption), 40);
        drop((x, y, z, w, upload, step, relay));
        settles_at(&*device, before);
    });
}

#[test]
fn a_failure_is_the_submissions_the_events_and_what_waits_for_them() {
    each(|inner| {
        for (fault, ran, queue) in [
            (Fault::FailureBefore, false, QueueKind::Compute),
            (Fault::FailureBefore, false, QueueKind::Transfer),
            (Fault::FailureAfter, true, QueueKind::Compute),
            (Fault::FailureAfter, true, QueueKind::Transfer),
        ] {
            let device = FaultDevice::new(inner.clone());
            let [x, y, z] = [6, 0, 0].map(|v| buffer(&*device, &[v; 16]));
            let (bad, next) = (copying(&*device, "bad step", &x, &y), copying(&*device, "next", &x, &z));
            let (event, chained) = (device.create_event(2).unwrap(), device.create_event(0).unwrap());
            device.next(fault);
            let failed = raising(&*device, queue, &bad, &event, 5);
            // Behind it on the same queue, and not waiting for it.
            let later = raising(&*device, queue, &next, &event, 7);
            let wait = [(event.clone(), 4)];
            let submit = Submit { wait: &wait, signal: &[(chained.clone(), 1)], ..Submit::new(&next) };
            let follower = device.submit(QueueKind::Compute, submit).unwrap();

            let error = failed.wait(LONG).unwrap_err();
            let DeviceError::Submission { label, reason } = &error else { panic!("{error}") };
            assert_eq!(label, "bad step");
            assert!(reason.contains(INJECTED), "{reason}");
            assert_eq!(failed.poll(), Some(Err(error.clone())));
            // What the host knows to have failed it may use again.
            assert_eq!(get(&*device, &y), if ran { [6; 16] } else { [0; 16] });
            event.wait(2, LONG).unwrap();
            assert_eq!(event.wait(3, LONG), Err(error.clone()));
            assert_eq!(event.wait(5, LONG), Err(error.clone()));
            assert_eq!(follower.wait(LONG), Err(error.clone()));
            assert_eq!(chained.wait(1, LONG), Err(error));
            later.wait(LONG).unwrap();
            event.wait(7, LONG).unwrap();
            assert_eq!(get(&*device, &z), [6; 16]);
            assert_eq!((injected(&device, fault), device.statistics().all_faults()), (1, 1));
        }
    });
}

#[test]
fn a_failure_keeps_the_order_of_its_queue() {
    each(|inner| {
        for fault in [Fault::FailureBefore, Fault::FailureAfter] {
            let device = FaultDevice::new(inner.clone());
            let (x, y) = (buffer(&*device, &[1; 4]), buffer(&*device, &[0; 4]));
            let copy = copying(&*device, "copy", &x, &y);
            let (go, event) = (device.create_event(0).unwrap(), device.create_event(0).unwrap());
            let wait = [(go.clone(), 1)];
            let first = Submit { wait: &wait, signal: &[(event.clone(), 1)], ..Submit::new(&copy) };
            let first = device.submit(QueueKind::Compute, first).unwrap();
            device.next(fault);
            let second = raising(&*device, QueueKind::Compute, &copy, &event, 2);
            let third = raising(&*device, QueueKind::Compute, &copy, &event, 3);
            assert!(matches!(second.wait(SHORT), Err(DeviceError::Timeout { .. })));
            assert_eq!(event.value(), Ok(0));
            go.signal(1);
            first.wait(LONG).unwrap();
            third.wait(LONG).unwrap();
            assert!(matches!(second.poll(), Some(Err(DeviceError::Submission { .. }))), "{second:?}");
            let reached = [1, 2, 3].map(|value| event.wait(value, LONG).is_ok());
            assert_eq!(reached, [true, false, true]);
        }
    });
}

#[test]
fn whoever_learns_of_a_failure_finds_the_bytes_free() {
    each(|inner| {
        let device = FaultDevice::new(inner);
        // Large enough that the copy takes a while.
        let size = repeat(32 << 20, 1 << 10) as u64;
        let [x, y] = ["x", "y"].map(|l| device.create_buffer(&BufferDesc::own(l, size)).unwrap());
        let end = |buffer: &Buffer| buffer.slice(size - 4, 4).unwrap();
        let commands = copying(&*device, "large", &x, &y);
        let event = device.create_event(0).unwrap();
        for value in 1..=5 {
            device.write(&end(&x), &[value; 4]).unwrap();
            device.next(Fault::FailureAfter);
            raising(&*device, QueueKind::Compute, &commands, &event, value.into());
            event.wait(value.into(), LONG).unwrap_err();
            let mut data = [0; 4];
            device.read(&end(&y), &mut data).unwrap();
            assert_eq!(data, [value; 4]);
        }
    });
}

#[test]
fn a_real_failure_goes_before_an_injected_one() {
    let device = FaultDevice::new(cpu(2));
    let fails = pipeline(&*device, "fail", fail);
    let bad = record(&*device, "bad step", |e| {
        let dispatch =
            Dispatch { pipeline: fails.clone(), bindings: vec![], params: vec![], groups: line(9) };
        e.dispatch(&dispatch).unwrap();
    });
    device.next(Fault::FailureAfter);
    let Err(DeviceError::Submission { reason, .. }) = run(&*device, &bad) else { panic!("it did not fail") };
    assert!(reason.contains("workgroup 3 went wrong"), "{reason}");
}

#[test]
fn kernels_run_before_they_are_said_to_have_failed() {
    let device = FaultDevice::new(cpu(2));
    let increments = pipeline(&*device, "increment", increment);
    let x = buffer(&*device, &[0; 8]);
    let commands = record(&*device, "step", |e| e.dispatch(&over_row(&increments, &x, 2)).unwrap());
    for (fault, expected) in [(Fault::FailureBefore, 0), (Fault::FailureAfter, 1)] {
        device.next(fault);
        run(&*device, &commands).unwrap_err();
        assert_eq!(get(&*device, &x), [expected; 8]);
    }
    run(&*device, &commands).unwrap();
    assert_eq!(get(&*device, &x), [2; 8]);
}

#[test]
fn wrong_use_is_told_as_such_and_is_no_fault() {
    let device = FaultDevice::new(cpu(1));
    let increments = pipeline(&*device, "increment", increment);
    let x = buffer(&*device, &[0; 8]);
    let commands = record(&*device, "step", |e| e.dispatch(&over_row(&increments, &x, 2)).unwrap());
    for fault in [Fault::FailureBefore, Fault::FailureAfter, Fault::SubmissionTimeout, Fault::TransferDelay] {
        device.next(fault);
        usage(device.submit(QueueKind::Transfer, Submit::new(&commands)).map(drop));
    }
    assert_eq!(device.statistics().all_faults(), 0);
    // Commands of another device are for that one to refuse.
    let stranger = FaultDevice::new(cpu(1));
    usage(stranger.submit(QueueKind::Compute, Submit::new(&commands)).map(drop));
}

#[test]
fn a_device_without_work_fails_too() {
    let device = FaultDevice::new(NoopDevice::new(Some(1 << 20)));
    let (x, y) = (buffer(&*device, &[1; 8]), buffer(&*device, &[1; 8]));
    let copy = copying(&*device, "copy", &x, &y);
    let event = device.create_event(0).unwrap();
    for (value, fault) in [(1, Fault::FailureBefore), (2, Fault::FailureAfter)] {
        device.next(fault);
        let failed = raising(&*device, QueueKind::Compute, &copy, &event, value);
        let error = failed.wait(LONG).unwrap_err();
        assert_eq!(event.wait(value, LONG), Err(error.clone()));
        assert_eq!(awaiting(&*device, QueueKind::Compute, &copy, &event, value).poll(), Some(Err(error)));
    }
    raising(&*device, QueueKind::Compute, &copy, &event, 3).wait(LONG).unwrap();
    event.wait(3, LONG).unwrap();
}

#[test]
fn arming_and_disarming_switch_it() {
    let device = FaultDevice::new(cpu(1));
    let x = buffer(&*device, &[4; 4]);
    let fails = |device: &Arc<FaultDevice>| device.read(&x.whole(), &mut [0; 16]).is_err();
    assert!(!fails(&device));
    device.arm(FaultPlan::new(1).with(Fault::ReadFailure, 1.0));
    assert!(fails(&device) && fails(&device));
    device.disarm();
    assert!(!fails(&device));
    device.next(Fault::ReadFailure);
    assert!(fails(&device) && !fails(&device));
    let statistics = device.statistics();
    assert_eq!((statistics.calls(Call::Read), statistics.faults(Fault::ReadFailure)), (6, 3));
    assert_eq!(statistics.to_string(), "3 faults in 8 calls: read-failure 3");
}
