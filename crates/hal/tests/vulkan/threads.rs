//! Many threads on one device.

use std::sync::atomic::{AtomicU32, Ordering};

use bessemer_hal::*;

use crate::support::*;

#[test]
fn many_threads_record_and_submit_the_same_and_other_commands() {
    const THREADS: u32 = 6;
    const EACH: u32 = 60;
    let Some(checked) = device() else { return };
    let device = &*checked;
    let increments = &pipeline(device, "increment", INCREMENT);
    let shared = buffer(device, &[0; 40]);
    let all = &record(device, "all", |e| e.dispatch(&incrementing(increments, &shared.whole())).unwrap());
    let completed = &AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let own = buffer(device, &[thread; 10]);
                for round in 1..=EACH {
                    let mine = record(device, "own", |e| {
                        e.dispatch(&incrementing(increments, &own.whole())).unwrap();
                    });
                    let both =
                        [all, &mine].map(|c| device.submit(QueueKind::Compute, Submit::new(c)).unwrap());
                    for submission in both {
                        submission.wait(LONG).unwrap();
                        completed.fetch_add(1, Ordering::Relaxed);
                    }
                    assert_eq!(get(device, &own), [thread + round; 10]);
                }
            });
        }
    });
    assert_eq!(completed.load(Ordering::Relaxed), THREADS * EACH * 2);
    assert_eq!(get(device, &shared), [THREADS * EACH; 40]);
}

#[test]
fn threads_read_and_write_through_staging_at_once() {
    let Some(options) = options() else { return };
    let checked = open_with(&vulkan::VulkanOptions { prefer_staging: true, ..options });
    let device = &*checked;
    std::thread::scope(|scope| {
        for thread in 0..6_u32 {
            scope.spawn(move || {
                let x = buffer(device, &vec![thread; 100_000]);
                for round in 0..10 {
                    put(device, &x, &vec![thread * 100 + round; 100_000]);
                    assert!(get(device, &x) == vec![thread * 100 + round; 100_000]);
                }
            });
        }
    });
}

#[test]
fn waiting_threads_all_wake() {
    let Some(device) = device() else { return };
    let event = device.create_event(0).unwrap();
    let woken = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for target in 1..=8 {
            let (event, woken) = (event.clone(), &woken);
            scope.spawn(move || {
                event.wait(target, LONG).unwrap();
                woken.fetch_add(1, Ordering::Relaxed);
            });
        }
        for value in 1..=8 {
            std::thread::sleep(SHORT / 20);
            event.signal(value);
        }
    });
    assert_eq!(woken.load(Ordering::Relaxed), 8);
    event.signal(3);
    assert_eq!(event.value(), Ok(8));
    assert!(event.wait(9, std::time::Duration::ZERO).is_err());
    event.wait(8, std::time::Duration::MAX).unwrap();
}

#[test]
fn pipelines_are_made_by_many_threads() {
    let Some(checked) = device() else { return };
    let device = &*checked;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (increments, scales) =
                    (pipeline(device, "increment", INCREMENT), pipeline(device, "scale", SCALE));
                let (x, y) = (buffer(device, &[1; 64]), buffer(device, &[0; 64]));
                let commands = record(device, "both", |e| {
                    e.dispatch(&incrementing(&increments, &x.whole())).unwrap();
                    e.barrier();
                    e.dispatch(&scaling(&scales, &x.whole(), &y.whole(), 3)).unwrap();
                });
                run(device, &commands).unwrap();
                assert_eq!(get(device, &y), [7; 64]);
            });
        }
    });
}
