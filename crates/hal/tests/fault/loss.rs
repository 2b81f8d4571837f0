//! The end of a device: lost, or dropped with work under way.

use std::time::{Duration, Instant};

use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_hal::*;

use crate::kernels::*;
use crate::support::*;

/// What a wait may take that ends because of a loss: far below [`LONG`], far above a slow machine's hiccups.
const PROMPT: Duration = Duration::from_secs(10);

fn lost<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(result, Err(DeviceError::Lost(_))), "{result:?}");
}

#[test]
fn a_lost_device_answers_every_call_and_ends_what_is_pending() {
    each(|inner| {
        let before = inner.allocated();
        let device = FaultDevice::new(inner.clone());
        let [a, b, c, d] = [1, 0, 2, 0].map(|v| buffer(&*device, &[v; 16]));
        let (upload, step) = (copying(&*device, "upload", &a, &b), copying(&*device, "step", &c, &d));
        let [go, done, steady] = [(); 3].map(|()| device.create_event(0).unwrap());
        raising(&*device, QueueKind::Compute, &step, &steady, 3).wait(LONG).unwrap();
        let mut encoder = device.create_encoder("open").unwrap();
        let wait = [(go.clone(), 1)];
        let held = Submit { wait: &wait, signal: &[(done.clone(), 1)], ..Submit::new(&upload) };
        let held = device.submit(QueueKind::Transfer, held).unwrap();
        let behind = raising(&*device, QueueKind::Transfer, &upload, &steady, 4);
        let follower = awaiting(&*device, QueueKind::Compute, &step, &done, 1);
        device.next(Fault::SubmissionTimeout);
        let late = device.submit(QueueKind::Compute, Submit::new(&step)).unwrap();

        let begin = Instant::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| done.wait(1, LONG));
            let watching = scope.spawn(|| held.wait(LONG));
            std::thread::sleep(SHORT);
            device.next(Fault::DeviceLoss);
            lost(device.read(&a.whole(), &mut [0; 64]));
            lost(waiting.join().unwrap());
            lost(watching.join().unwrap());
        });
        for submission in [&held, &behind, &follower, &late] {
            lost(submission.wait(LONG));
            assert!(matches!(submission.poll(), Some(Err(DeviceError::Lost(_)))));
        }
        lost(device.create_heap(&HeapDesc { label: "heap", size: 64 }));
        lost(device.create_buffer(&BufferDesc::own("buffer", 64)));
        lost(device.create_event(0));
        lost(device.create_encoder("label").map(drop));
        lost(device.create_pipeline(&PipelineDesc { label: "kernel", code: Code::Cpu(increment) }));
        lost(device.submit(QueueKind::Compute, Submit::new(&step)));
        lost(device.write(&a.whole(), &[0; 64]));
        lost(encoder.copy(&a.whole(), &b.whole()));
        lost(encoder.finish());
        // What was reached stays so, and the rest never comes, although the device inside goes on.
        steady.wait(3, LONG).unwrap();
        lost(steady.wait(4, LONG));
        lost(steady.value());
        lost(done.wait(1, LONG));
        assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
        assert_eq!(injected(&device, Fault::DeviceLoss), 1);
        device.disarm();
        lost(device.create_event(0));
        // Nothing waits inside for what will not come, so all memory returns while both devices live.
        drop((a, b, c, d, upload, step));
        settles_at(&*inner, before);
        go.signal(1);
        lost(done.wait(1, LONG));
        // A new one around the same device is the device after a restart.
        let device = FaultDevice::new(inner.clone());
        let (x, y) = (buffer(&*device, &[8; 4]), buffer(&*device, &[0; 4]));
        run(&*device, &copying(&*device, "again", &x, &y)).unwrap();
        assert_eq!(get(&*device, &y), [8; 4]);
    });
}

#[test]
fn a_loss_can_come_at_any_moment() {
    each(|inner| {
        for round in 0..repeat(30, 2) as u64 {
            let device = FaultDevice::new(inner.clone());
            let (x, y) = (buffer(&*device, &[1; 256]), buffer(&*device, &[0; 256]));
            let commands = copying(&*device, "copy", &x, &y);
            let event = device.create_event(0).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_micros(100 * round));
                    device.lose("pulled");
                });
                for value in 1.. {
                    let signal = [(event.clone(), value)];
                    let submit = Submit { signal: &signal, ..Submit::new(&commands) };
                    let Ok(submission) = device.submit(QueueKind::Transfer, submit) else { break };
                    match submission.wait(LONG) {
                        // An end that was reported stays true.
                        Ok(_) => event.wait(value, LONG).unwrap(),
                        error => lost(error),
                    }
                }
            });
        }
    });
}

#[test]
fn dropping_ends_what_is_held_back() {
    each(|inner| {
        let before = inner.allocated();
        for keeps_inner in [true, false] {
            let device = FaultDevice::new(inner.clone());
            device.arm(FaultPlan::new(0).with_timeout(LONG));
            let (x, y) = (buffer(&*device, &[1; 8]), buffer(&*device, &[0; 8]));
            let commands = copying(&*device, "copy", &x, &y);
            let done = device.create_event(0).unwrap();
            device.next(Fault::SubmissionTimeout);
            let late = raising(&*device, QueueKind::Transfer, &commands, &done, 1);
            let begin = Instant::now();
            drop(device);
            lost(late.wait(LONG));
            lost(done.wait(1, LONG));
            assert!(begin.elapsed() < PROMPT);
            if keeps_inner {
                run_inside(&*inner);
            }
        }
        settles_at(&*inner, before);
    });
}

/// The queues of the device inside are free.
fn run_inside(inner: &dyn Device) {
    let (x, y) = (buffer(inner, &[1; 8]), buffer(inner, &[0; 8]));
    let commands = copying(inner, "inside", &x, &y);
    for queue in [QueueKind::Compute, QueueKind::Transfer] {
        inner.submit(queue, Submit::new(&commands)).unwrap().wait(LONG).unwrap();
    }
}

#[test]
fn a_wrapper_that_owns_its_device_ends_with_it() {
    let device = FaultDevice::new(cpu(1));
    device.arm(FaultPlan::new(0).with_timeout(LONG));
    let (x, y) = (buffer(&*device, &[1; 8]), buffer(&*device, &[0; 8]));
    let commands = copying(&*device, "copy", &x, &y);
    let never = device.create_event(0).unwrap();
    let stuck = awaiting(&*device, QueueKind::Transfer, &commands, &never, 1);
    device.next(Fault::SubmissionTimeout);
    let late = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
    device.next(Fault::FailureAfter);
    let wait = [(never.clone(), 1)];
    let failing =
        device.submit(QueueKind::Compute, Submit { wait: &wait, ..Submit::new(&commands) }).unwrap();
    let begin = Instant::now();
    drop(device);
    for submission in [stuck, late, failing] {
        lost(submission.wait(LONG));
    }
    assert!(begin.elapsed() < PROMPT);
}
