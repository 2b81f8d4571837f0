//! Order, events, failures, and the end of a device.

mod kernels;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bessemer_hal::*;
use kernels::*;

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn one_queue_keeps_the_order_of_submission() {
    let device = cpu(2);
    let scales = pipeline(&*device, "scale", scale);
    let (a, b) = (buffer(&*device, &[1; 100]), buffer(&*device, &[0; 100]));
    let step = |factor| {
        record(&*device, "step", |e| {
            e.dispatch(&scaling(&scales, &a.whole(), &b.whole(), factor, 9)).unwrap();
            e.barrier();
            e.copy(&b.whole(), &a.whole()).unwrap();
        })
    };
    let steps: Vec<_> = [3, 5, 7].into_iter().map(step).collect();
    let mut expected = 1_u32;
    let mut last = None;
    for i in 0..repeat(600, 12) {
        let factor = [3, 5, 7][i % 3];
        expected = expected.wrapping_mul(factor).wrapping_add(1);
        last = Some(device.submit(QueueKind::Compute, Submit::new(&steps[i % 3])).unwrap());
    }
    last.unwrap().wait(LONG).unwrap();
    assert_eq!(get(&*device, &a), [expected; 100]);
}

#[test]
fn an_upload_on_the_transfer_queue_comes_before_the_compute_that_waits_for_it() {
    let device = cpu(2);
    let scales = pipeline(&*device, "scale", scale);
    let (staging, input, out, back) = (
        buffer(&*device, &[0; 1000]),
        buffer(&*device, &[0; 1000]),
        buffer(&*device, &[0; 1000]),
        buffer(&*device, &[0; 1000]),
    );
    let upload = record(&*device, "upload", |e| e.copy(&staging.whole(), &input.whole()).unwrap());
    let compute = record(&*device, "compute", |e| {
        e.dispatch(&scaling(&scales, &input.whole(), &out.whole(), 2, 33)).unwrap();
    });
    let download = record(&*device, "download", |e| e.copy(&out.whole(), &back.whole()).unwrap());
    let (uploaded, computed) = (device.create_event(0).unwrap(), device.create_event(0).unwrap());
    let free = device.create_event(0).unwrap();
    for step in 1..repeat(200, 6) as u64 {
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
    let device = cpu(2);
    let increments = pipeline(&*device, "increment", increment);
    let x = buffer(&*device, &[0; 8]);
    let commands = record(&*device, "waits", |e| e.dispatch(&over_row(&increments, &x, 2)).unwrap());
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
    assert_eq!(get(&*device, &x), [1; 8]);
}

#[test]
fn bytes_that_pending_work_reads_may_be_read_but_not_written() {
    let device = cpu(1);
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
fn bytes_of_a_refused_command_are_free() {
    let device = cpu(1);
    let (x, y, z) = (buffer(&*device, &[1; 4]), buffer(&*device, &[2; 4]), buffer(&*device, &[3; 4]));
    let go = device.create_event(0).unwrap();
    let commands = record(&*device, "refused", |e| {
        e.copy(&x.whole(), &y.whole()).unwrap();
        usage(e.copy(&z.whole(), &y.whole()));
    });
    let submit = Submit { wait: &[(go.clone(), 1)], ..Submit::new(&commands) };
    let submission = device.submit(QueueKind::Compute, submit).unwrap();
    put(&*device, &z, &[9; 4]);
    go.signal(1);
    submission.wait(LONG).unwrap();
    assert_eq!(get(&*device, &y), [1; 4]);
}

#[test]
fn a_panicking_kernel_fails_its_submission_and_nothing_else() {
    for threads in [1, 4] {
        let device = cpu(threads);
        let (fails, increments) =
            (pipeline(&*device, "fail", fail), pipeline(&*device, "increment", increment));
        let x = buffer(&*device, &[0; 64]);
        let bad = record(&*device, "bad step", |e| {
            let groups = 100;
            e.dispatch(&Dispatch {
                pipeline: fails.clone(),
                bindings: vec![],
                params: vec![],
                groups: line(groups),
            })
            .unwrap();
            e.barrier();
            e.dispatch(&over_row(&increments, &x, 1)).unwrap();
        });
        let good = record(&*device, "good step", |e| e.dispatch(&over_row(&increments, &x, 1)).unwrap());
        for round in 0..repeat(20, 2) as u32 {
            let (event, chained) = (device.create_event(2).unwrap(), device.create_event(0).unwrap());
            let submit = Submit { signal: &[(event.clone(), 5)], ..Submit::new(&bad) };
            let failed = device.submit(QueueKind::Compute, submit).unwrap().wait(LONG).unwrap_err();
            let DeviceError::Submission { label, reason } = &failed else { panic!("{failed}") };
            assert_eq!(label, "bad step");
            assert!(reason.contains("workgroup 3 went wrong"), "{reason}");
            // What was reached stays reached; what the submission owed is failed; what waits for that fails too.
            event.wait(2, LONG).unwrap();
            assert_eq!(event.value(), Err(failed.clone()));
            assert_eq!(event.wait(4, LONG), Err(failed.clone()));
            assert!(matches!(event.wait(6, SHORT / 10), Err(DeviceError::Timeout { .. })));
            let follow =
                Submit { wait: &[(event.clone(), 5)], signal: &[(chained.clone(), 1)], ..Submit::new(&good) };
            let follow = device.submit(QueueKind::Compute, follow).unwrap();
            assert_eq!(follow.wait(LONG), Err(failed.clone()));
            assert_eq!(chained.wait(1, LONG), Err(failed.clone()));
            // A later success reaches higher values and does not whitewash the failed ones.
            let later = Submit { signal: &[(event.clone(), 6)], ..Submit::new(&good) };
            device.submit(QueueKind::Compute, later).unwrap().wait(LONG).unwrap();
            event.wait(6, LONG).unwrap();
            assert_eq!(event.value(), Ok(6));
            assert_eq!(event.wait(5, LONG), Err(failed));
            assert_eq!(get(&*device, &x), [round + 1; 64]);
        }
    }
}

#[test]
fn a_kernel_that_breaks_its_contract_fails_its_submission() {
    fn reads_its_output(inv: &mut cpu::Invocation<'_>) {
        inv.input::<u32>(0);
    }
    fn takes_wide_elements(inv: &mut cpu::Invocation<'_>) {
        inv.output::<u64>(0);
    }
    fn takes_twice(inv: &mut cpu::Invocation<'_>) {
        inv.output::<u32>(0);
        inv.output::<u32>(0);
    }
    fn wants_parameters(inv: &mut cpu::Invocation<'_>) {
        let _: u32 = inv.params();
    }
    let device = cpu(2);
    let x = buffer(&*device, &[0; 16]);
    for (kernel, rule) in [
        (reads_its_output as cpu::CpuKernel, "only reads"),
        (takes_wide_elements, "lies inside its slice"),
        (takes_twice, "once"),
        (wants_parameters, "parameters"),
    ] {
        let broken = pipeline(&*device, "broken", kernel);
        let commands = record(&*device, "broken", |e| e.dispatch(&over_row(&broken, &x, 4)).unwrap());
        let Err(DeviceError::Submission { reason, .. }) = run(&*device, &commands) else { panic!("{rule}") };
        assert!(reason.contains(rule), "{reason}");
    }
}

#[test]
fn two_queues_on_the_same_bytes_need_an_event() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    static RELEASE: AtomicBool = AtomicBool::new(false);
    fn hold(inv: &mut cpu::Invocation<'_>) {
        STARTED.store(true, Ordering::Release);
        while !RELEASE.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        increment(inv);
    }
    let device = cpu(1);
    let holds = pipeline(&*device, "hold", hold);
    let (x, y) = (buffer(&*device, &[1; 4]), buffer(&*device, &[0; 4]));
    let long = record(&*device, "long", |e| e.dispatch(&over_row(&holds, &x, 4)).unwrap());
    let copy = record(&*device, "racing copy", |e| e.copy(&x.whole(), &y.whole()).unwrap());
    let running = device.submit(QueueKind::Compute, Submit::new(&long)).unwrap();
    while !STARTED.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    let raced = device.submit(QueueKind::Transfer, Submit::new(&copy)).unwrap().wait(LONG);
    RELEASE.store(true, Ordering::Release);
    let Err(DeviceError::Submission { reason, .. }) = raced else { panic!("{raced:?}") };
    assert!(reason.contains("'long'") && reason.contains("event"), "{reason}");
    running.wait(LONG).unwrap();
    device.submit(QueueKind::Transfer, Submit::new(&copy)).unwrap().wait(LONG).unwrap();
    assert_eq!(get(&*device, &y), [2; 4]);
}

#[test]
fn dropping_a_device_ends_pending_work() {
    for round in 0..repeat(20, 4) {
        let device = cpu(1 + round % 4);
        let slows = pipeline(&*device, "slow", slow);
        let x = buffer(&*device, &[0]);
        let commands = record(&*device, "slow", |e| e.dispatch(&over_row(&slows, &x, 1)).unwrap());
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
        assert!(matches!(running.poll(), Some(Ok(_) | Err(DeviceError::Lost(_)))), "{running:?}");
        assert!(matches!(queued.poll(), Some(Err(DeviceError::Lost(_)))), "{queued:?}");
        assert!(matches!(stuck.poll(), Some(Err(DeviceError::Lost(_)))), "{stuck:?}");
        assert!(matches!(done.wait(1, LONG), Err(DeviceError::Lost(_))));
        drop((x, commands));
    }
}

#[test]
fn many_threads_submit_the_same_and_other_commands() {
    const THREADS: u32 = 6;
    const EACH: u32 = repeat(300, 4) as u32;
    let device = cpu(3);
    let increments = pipeline(&*device, "increment", increment);
    let shared = buffer(&*device, &[0; 40]);
    let all = record(&*device, "all", |e| e.dispatch(&over_row(&increments, &shared, 3)).unwrap());
    let completed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (device, all, increments, completed) = (&device, &all, &increments, &completed);
            scope.spawn(move || {
                let own = buffer(&**device, &[thread; 10]);
                let mine = record(&**device, "own", |e| e.dispatch(&over_row(increments, &own, 2)).unwrap());
                for round in 1..=EACH {
                    let both =
                        [all, &mine].map(|c| device.submit(QueueKind::Compute, Submit::new(c)).unwrap());
                    for submission in both {
                        submission.wait(LONG).unwrap();
                        completed.fetch_add(1, Ordering::Relaxed);
                    }
                    assert_eq!(get(&**device, &own), [thread + round; 10]);
                }
            });
        }
    });
    assert_eq!(completed.into_inner(), THREADS * EACH * 2);
    assert_eq!(get(&*device, &shared), [THREADS * EACH; 40]);
}

#[test]
fn waiting_threads_all_wake() {
    let device = cpu(1);
    let event = device.create_event(0).unwrap();
    let woken = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for target in 1..=8 {
            let (event, woken) = (event.clone(), woken.clone());
            scope.spawn(move || {
                event.wait(target, LONG).unwrap();
                woken.fetch_add(1, Ordering::Relaxed);
            });
        }
        for value in 1..=8 {
            std::thread::sleep(Duration::from_millis(1));
            event.signal(value);
        }
    });
    assert_eq!(woken.load(Ordering::Relaxed), 8);
    event.signal(3);
    assert_eq!(event.value(), Ok(8));
    assert!(event.wait(9, Duration::ZERO).is_err());
    event.wait(8, Duration::MAX).unwrap();
}
