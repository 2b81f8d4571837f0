//! Order between transfers and compute is kept by events, not by waits of the host.

use bessemer_hal::{DeviceError, QueueKind, Submit};

use super::support::*;

/// Everything is submitted while a gate is closed, so a wait of the host would never end.
#[test]
fn upload_compute_and_download_run_without_the_host() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |_| ());
        let (gate, computed) = (rig.device.create_event(0).unwrap(), rig.device.create_event(0).unwrap());
        let (input, out) = (rig.buffer(4000), rig.buffer(4000));
        let commands = rig.scaling(&input, &out, 3).unwrap();
        let mut downloads = Vec::new();
        let mut free = (gate.clone(), 1);
        for step in 1..=3_u32 {
            let data = words(&vec![step * 10; 1000]);
            let up = queue.upload(&input, &data, Some(free)).unwrap();
            let value = u64::from(step);
            let submit = Submit {
                wait: &[up.event()],
                signal: &[(computed.clone(), value)],
                ..Submit::new(&commands)
            };
            rig.device.submit(QueueKind::Compute, submit).unwrap();
            let down = queue.download(&out, Some((computed.clone(), value))).unwrap();
            free = down.ticket().event();
            downloads.push((up, down));
        }
        std::thread::sleep(SHORT);
        for (up, down) in &downloads {
            assert!(!queue.is_completed(up) && !queue.is_completed(down.ticket()));
        }
        assert_eq!(queue.get_metrics().queue_depth, 6);
        gate.signal(1);
        for (step, (_, mut down)) in (1..).zip(downloads) {
            assert!(queue.wait_for_bytes(&mut down, LONG).unwrap() == words(&vec![step * 30 + 1; 1000]));
        }
    }
}

#[test]
fn without_shared_events_the_host_keeps_the_order() {
    for rig in Rig::all() {
        let impatient = queue(&rig.device, |config| {
            (config.use_shared_events, config.timeout_ms) = (false, 100);
        });
        let gate = rig.device.create_event(0).unwrap();
        let (slice, data) = (rig.buffer(100), noise(5, 100));
        let error = impatient.upload(&slice, &data, Some((gate.clone(), 1))).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        let metrics = impatient.get_metrics();
        assert_eq!(metrics.queue_depth, 0, "nothing was submitted");
        assert_eq!((metrics.sync_wait_count, metrics.timeouts), (1, 1));

        let queue = queue(&rig.device, |config| config.use_shared_events = false);
        let opener = std::thread::spawn({
            let gate = gate.clone();
            move || {
                std::thread::sleep(SHORT);
                gate.signal(1);
            }
        });
        let ticket = queue.upload(&slice, &data, Some((gate, 1))).unwrap();
        assert!(queue.is_completed(&ticket), "an upload has arrived when it returns");
        opener.join().unwrap();
        assert!(read(&*rig.device, &slice) == data);
        assert_eq!(queue.get_metrics().timeouts, 0);
    }
}

#[test]
fn switching_while_transfers_are_under_way_loses_and_reorders_nothing() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |_| ());
        let gate = rig.device.create_event(0).unwrap();
        let (slice, other) = (rig.buffer(3000), rig.buffer(10));
        let first = queue.upload(&slice, &noise(1, 3000), Some((gate.clone(), 1))).unwrap();
        queue.set_enabled(false);
        // Not held up by what is stuck, because it is of other bytes.
        let plain = queue.upload(&other, &noise(9, 10), None).unwrap();
        assert!(queue.is_completed(&plain) && !queue.is_completed(&first));
        let opener = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            gate.signal(1);
        });
        // Of the same bytes: comes behind the first.
        let second = queue.upload(&slice, &noise(2, 3000), None).unwrap();
        assert!(queue.is_completed(&first) && queue.is_completed(&second));
        opener.join().unwrap();
        queue.set_enabled(true);
        let mut back = queue.download(&slice, None).unwrap();
        assert!(queue.wait_for_bytes(&mut back, LONG).unwrap() == noise(2, 3000));
        let metrics = queue.get_metrics();
        assert_eq!((metrics.plain_transfers, metrics.total_uploads, metrics.failed_transfers), (2, 3, 0));
    }
}

#[test]
fn the_switch_may_be_thrown_by_another_thread_at_any_moment() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |config| config.max_pending_ops = 2);
        let slice = rig.buffer(2000);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    queue.set_enabled(!queue.is_enabled());
                    std::thread::yield_now();
                }
            });
            for round in 1..100 {
                let data = noise(round, 2000);
                queue.upload(&slice, &data, None).unwrap();
                let mut back = queue.download(&slice, None).unwrap();
                assert!(queue.wait_for_bytes(&mut back, LONG).unwrap() == data, "round {round}");
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        assert_eq!(queue.get_metrics().failed_transfers, 0);
    }
}

#[test]
fn a_full_ring_times_out_and_is_whole_again_when_the_device_goes_on() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |config| (config.max_pending_ops, config.timeout_ms) = (2, 100));
        let gate = rig.device.create_event(0).unwrap();
        let slices = [rig.buffer(500), rig.buffer(500), rig.buffer(500)];
        let put = |i: usize| queue.upload(&slices[i], &noise(i as u64 + 1, 500), Some((gate.clone(), 1)));
        let tickets = [put(0).unwrap(), put(1).unwrap()];
        let error = put(2).unwrap_err();
        assert!(error.to_string().contains("a free slot of the transfer ring (2 operations"), "{error}");
        let DeviceError::Timeout { millis: 100, .. } = error.into() else { panic!("another kind") };
        for ticket in &tickets {
            assert!(queue.wait_for_completion(ticket, SHORT).unwrap_err().is_timeout());
        }
        assert!(queue.wait_for_all(SHORT).unwrap_err().is_timeout());
        let metrics = queue.get_metrics();
        assert_eq!((metrics.timeouts, metrics.queue_depth, metrics.total_uploads), (4, 2, 0));
        assert!(metrics.sync_wait_count >= 4 && metrics.avg_sync_wait_ms >= 20.0, "{metrics:?}");
        gate.signal(1);
        queue.wait_for_all(LONG).unwrap();
        put(2).unwrap();
        queue.wait_for_all(LONG).unwrap();
        for (i, slice) in slices.iter().enumerate() {
            assert!(read(&*rig.device, slice) == noise(i as u64 + 1, 500), "the slots were left alone");
        }
        assert_eq!(queue.get_metrics().total_uploads, 3);
    }
}

#[test]
fn a_prefetched_batch_is_there_when_it_is_needed() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |_| ());
        let (ids, positions, out) = (rig.buffer(400), rig.buffer(40), rig.buffer(400));
        let (data, more) = (words(&[7; 100]), noise(2, 40));
        let arrays = [
            bessemer_runtime::Prefetch { to: &ids, data: &data },
            bessemer_runtime::Prefetch { to: &positions, data: &more },
        ];
        assert!(queue.prefetch_next_batch(1, &arrays, None).unwrap());
        let tickets = queue.take_prefetched(1).unwrap();
        assert_eq!(tickets.iter().map(|t| t.bytes()).collect::<Vec<_>>(), [400, 40]);
        let wait: Vec<_> = tickets.iter().map(|t| t.event()).collect();
        let commands = rig.scaling(&ids, &out, 2).unwrap();
        let submit = Submit { wait: &wait, ..Submit::new(&commands) };
        rig.device.submit(QueueKind::Compute, submit).unwrap().wait(LONG).unwrap();
        assert!(read(&*rig.device, &out) == words(&[15; 100]) && read(&*rig.device, &positions) == more);
        assert!(queue.take_prefetched(1).is_none(), "it is taken once");
        let metrics = queue.get_metrics();
        assert_eq!((metrics.prefetches, metrics.prefetch_hits, metrics.prefetch_misses), (1, 1, 1));
    }
}
