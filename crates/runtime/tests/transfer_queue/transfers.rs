//! What goes up comes down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bessemer_hal::Device;
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_runtime::TransferQueueConfig;

use super::support::*;

#[test]
fn odd_sizes_and_offsets_arrive_and_leave_their_neighbours_alone() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |_| ());
        let whole = rig.buffer(5000);
        let mut expected = vec![0; 5000];
        for (i, (offset, size)) in
            [(0, 1), (1, 3), (17, 255), (300, 256), (777, 1025), (2001, 2999)].into_iter().enumerate()
        {
            let data = noise(i as u64 + 1, size);
            let slice = whole.slice(offset as u64, size as u64).unwrap();
            let ticket = queue.upload(&slice, &data, None).unwrap();
            assert_eq!(ticket.bytes(), size as u64);
            let mut back = queue.download(&slice, None).unwrap();
            assert_eq!(queue.wait_for_bytes(&mut back, LONG).unwrap(), data, "{offset}+{size}");
            expected[offset..offset + size].copy_from_slice(&data);
        }
        assert!(read(&*rig.device, &whole) == expected, "bytes beside the slices are as they were");
    }
}

#[test]
fn transfers_longer_than_the_ring_go_through_in_pieces() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |config| config.max_pending_ops = 3);
        let size = (3 << 20) + 77;
        let (slice, data) = (rig.buffer(size), noise(3, size as usize));
        let gate = rig.device.create_event(0).unwrap();
        let opener = std::thread::spawn({
            let gate = gate.clone();
            move || {
                std::thread::sleep(SHORT);
                gate.signal(1);
            }
        });
        let ticket = queue.upload(&slice, &data, Some((gate, 1))).unwrap();
        opener.join().unwrap();
        queue.wait_for_completion(&ticket, LONG).unwrap();
        assert!(read(&*rig.device, &slice) == data);
        let mut back = queue.download(&slice, None).unwrap();
        assert!(queue.wait_for_bytes(&mut back, LONG).unwrap() == data);
        let metrics = queue.get_metrics();
        assert_eq!((metrics.total_uploads, metrics.total_downloads), (1, 1), "pieces are not operations");
        assert_eq!((metrics.bytes_up, metrics.bytes_down, metrics.queue_depth), (size, size, 0));
        assert!(metrics.sync_wait_count > 0, "ten pieces do not fit three slots");
    }
}

#[test]
fn nothing_is_a_transfer_too() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |_| ());
        let empty = rig.buffer(16).slice(8, 0).unwrap();
        for enabled in [true, false] {
            queue.set_enabled(enabled);
            let ticket = queue.upload(&empty, &[], None).unwrap();
            assert!(queue.is_completed(&ticket));
            let (event, value) = ticket.event();
            event.wait(value, SHORT).unwrap();
            let mut back = queue.download(&empty, None).unwrap();
            assert!(queue.wait_for_bytes(&mut back, SHORT).unwrap().is_empty());
            let plain = queue.get_metrics().plain_transfers;
            assert_eq!(plain, if enabled { 0 } else { 2 });
        }
        assert_eq!(queue.get_metrics().total_uploads, 2);
    }
}

#[test]
fn many_threads_share_a_queue() {
    for rig in Rig::all() {
        let queue = queue(&rig.device, |config| config.max_pending_ops = 3);
        let whole = rig.buffer(8 * 4096);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (queue, whole) = (&queue, &whole);
                scope.spawn(move || {
                    for round in 0..20_u64 {
                        let size = 1 + (thread * 37 + round * 191) % 4000;
                        let slice = whole.slice(thread * 4096, size).unwrap();
                        let data = noise(thread * 100 + round + 1, size as usize);
                        queue.upload(&slice, &data, None).unwrap();
                        let mut back = queue.download(&slice, None).unwrap();
                        assert!(queue.get_metrics().queue_depth <= 3);
                        assert!(queue.wait_for_bytes(&mut back, LONG).unwrap() == data);
                    }
                });
            }
        });
        queue.wait_for_all(LONG).unwrap();
        let metrics = queue.get_metrics();
        assert_eq!((metrics.total_uploads, metrics.total_downloads, metrics.queue_depth), (160, 160, 0));
        assert_eq!((metrics.failed_transfers, metrics.timeouts), (0, 0));
    }
}

#[test]
fn a_download_gives_its_bytes_once_and_may_be_dropped() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |config| config.max_pending_ops = 1);
    let slice = rig.buffer(100);
    let mut download = queue.download(&slice, None).unwrap();
    assert_eq!(queue.wait_for_bytes(&mut download, LONG).unwrap().len(), 100);
    assert!(queue.wait_for_bytes(&mut download, LONG).unwrap().is_empty());
    for _ in 0..10 {
        drop(queue.download(&slice, None).unwrap());
    }
    queue.wait_for_all(LONG).unwrap();
    assert_eq!(queue.get_metrics().total_downloads, 11);
}

#[test]
fn without_async_a_transfer_is_over_when_it_returns() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |config| {
        (config.async_upload, config.async_download) = (false, false);
    });
    let (slice, data) = (rig.buffer(1000), noise(1, 1000));
    for round in 1..20 {
        queue.upload(&slice, &data, None).unwrap();
        assert_eq!(queue.get_metrics().queue_depth, 0);
        queue.download(&slice, None).unwrap();
        let metrics = queue.get_metrics();
        assert_eq!((metrics.total_uploads, metrics.total_downloads), (round, round));
    }
    assert!(read(&*rig.device, &slice) == data);
}

#[test]
fn every_transfer_has_a_number_of_its_own() {
    let rig = Rig::cpu();
    let slice = rig.buffer(10);
    let mut numbers = Vec::new();
    for queue in [queue(&rig.device, |_| ()), queue(&rig.device, |_| ())] {
        for _ in 0..2 {
            numbers.push(queue.upload(&slice, &[1; 10], None).unwrap().id());
            numbers.push(queue.download(&slice, None).unwrap().ticket().id());
        }
        queue.wait_for_all(LONG).unwrap();
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 8);
}

/// Of a transfer that takes a while.
#[test]
fn what_is_not_asynchronous_has_ended_when_it_returns() {
    type Change = fn(&mut TransferQueueConfig);
    let uploads: [Change; 3] =
        [|c| c.async_upload = false, |c| c.use_shared_events = false, |c| c.verify_checksums = true];
    let downloads: [Change; 2] = [|c| c.async_download = false, |c| c.verify_checksums = true];
    let faulty = FaultDevice::new(Odd::discrete());
    faulty.arm(FaultPlan::new(0).with_timeout(SHORT));
    let device: Arc<dyn Device> = faulty.clone();
    let slice = buffer(&*device, 100);
    for change in uploads {
        let queue = queue(&device, change);
        faulty.next(Fault::SubmissionTimeout);
        let begin = Instant::now();
        let ticket = queue.upload(&slice, &[3; 100], None).unwrap();
        assert!(begin.elapsed() >= SHORT && queue.is_completed(&ticket));
    }
    for change in downloads {
        let queue = queue(&device, change);
        assert!(!queue.downloads_ahead());
        faulty.next(Fault::SubmissionTimeout);
        let begin = Instant::now();
        let download = queue.download(&slice, None).unwrap();
        assert!(begin.elapsed() >= SHORT && queue.is_completed(download.ticket()));
    }
}

#[test]
fn a_wait_for_a_slot_is_counted() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |config| config.max_pending_ops = 1);
    let (slice, gate) = (rig.buffer(100), rig.device.create_event(0).unwrap());
    queue.upload(&slice, &[1; 100], Some((gate.clone(), 1))).unwrap();
    assert_eq!(queue.get_metrics().sync_wait_count, 0);
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            begun.store(true, Ordering::SeqCst);
            queue.upload(&slice, &[2; 100], None).unwrap();
        });
        while !begun.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(5 * SHORT);
        assert!(!second.is_finished());
        gate.signal(1);
    });
    let metrics = queue.get_metrics();
    assert!(metrics.sync_wait_count == 1 && metrics.avg_sync_wait_ms > 20.0, "{metrics:?}");
}

#[test]
fn a_wait_may_be_for_ever() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |_| ());
    let slice = rig.buffer(100);
    let for_ever = Duration::MAX;
    let ticket = queue.upload(&slice, &[3; 100], None).unwrap();
    queue.wait_for_completion(&ticket, for_ever).unwrap();
    let mut back = queue.download(&slice, None).unwrap();
    queue.wait_for_all(for_ever).unwrap();
    assert_eq!(queue.wait_for_bytes(&mut back, for_ever).unwrap(), [3; 100]);
}

/// Nobody waits: whoever asks takes in what has ended.
#[test]
fn asking_is_enough_to_see_a_transfer_end() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |config| config.max_pending_ops = 3);
    assert_eq!((queue.config().max_pending_ops, queue.config().staging_buffer_size_mb), (3, 1));
    let ticket = queue.upload(&rig.buffer(100), &[3; 100], None).unwrap();
    let begin = Instant::now();
    while !queue.is_completed(&ticket) {
        assert!(begin.elapsed() < LONG, "it never ends");
        std::thread::yield_now();
    }
}

/// Nobody wants its bytes, so a device that would fail to give them is not asked.
#[test]
fn a_dropped_download_is_not_read() {
    let faulty = FaultDevice::new(Odd::discrete());
    let device: Arc<dyn Device> = faulty.clone();
    let queue = queue(&device, |_| ());
    let slice = buffer(&*device, 100);
    let download = queue.download(&slice, None).unwrap();
    faulty.next(Fault::ReadFailure);
    drop(download);
    queue.wait_for_all(LONG).unwrap();
    assert_eq!(queue.get_metrics().failed_transfers, 0);
    let mut wanted = queue.download(&slice, None).unwrap();
    assert!(queue.wait_for_bytes(&mut wanted, LONG).is_err(), "the failure is still to come");
}
