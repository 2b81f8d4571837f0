//! Failures reach whoever holds the ticket, and nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bessemer_hal::cpu::Invocation;
use bessemer_hal::fault::{Fault, FaultDevice};
use bessemer_hal::*;
use bessemer_runtime::{
    Direction, Prefetch, TransferError, TransferQueue, TransferQueueConfig, TransferQueueError,
};

use super::support::*;

/// An event whose value 1 has failed.
fn failed_event(device: &dyn Device) -> Event {
    fn fail(_: &mut Invocation<'_>) {
        panic!("this kernel fails, as it should");
    }
    let pipeline = device.create_pipeline(&PipelineDesc { label: "fail", code: Code::Cpu(fail) }).unwrap();
    let out = buffer(device, 4);
    let tiling = Tiling::whole(1, 1);
    let bindings = vec![Binding::write(out, tiling)];
    let mut encoder = device.create_encoder("fail").unwrap();
    encoder.dispatch(&Dispatch { pipeline, bindings, params: vec![], groups: tiling.grid() }).unwrap();
    let commands = encoder.finish().unwrap();
    let event = device.create_event(0).unwrap();
    let submit = Submit { signal: &[(event.clone(), 1)], ..Submit::new(&commands) };
    device.submit(QueueKind::Compute, submit).unwrap().wait(LONG).unwrap_err();
    event
}

#[test]
fn a_failed_transfer_tells_its_holders_and_the_ring_goes_on() {
    let rig = Rig::cpu();
    let failed = failed_event(&*rig.device);
    let queue = queue(&rig.device, |config| config.max_pending_ops = 2);
    let (slice, data) = (rig.buffer(1 << 20), noise(4, 1 << 20));
    for round in 1..=5 {
        // Two pieces, the first of which fails: neither the ticket nor its event may tell of success.
        let bad = queue.upload(&slice, &data, Some((failed.clone(), 1))).unwrap();
        let error = queue.wait_for_completion(&bad, LONG).unwrap_err();
        let TransferError::Device(DeviceError::Submission { reason, .. }) = error else { panic!("{error}") };
        assert!(reason.contains("as it should"), "{reason}");
        let (event, value) = bad.event();
        assert!(matches!(event.wait(value, LONG), Err(DeviceError::Submission { .. })));
        let good = queue.upload(&slice, &data, None).unwrap();
        queue.wait_for_completion(&good, LONG).unwrap();
        let (event, value) = good.event();
        event.wait(value, LONG).unwrap();
        queue.wait_for_all(LONG).unwrap();
        let metrics = queue.get_metrics();
        assert_eq!((metrics.failed_transfers, metrics.total_uploads, metrics.queue_depth), (round, round, 0));
    }
    let mut bad = queue.download(&slice, Some((failed, 1))).unwrap();
    assert!(queue.wait_for_bytes(&mut bad, LONG).is_err());
    assert!(read(&*rig.device, &slice) == data);
}

#[test]
fn a_failure_does_not_spoil_the_tickets_of_the_slot_before_it() {
    let rig = Rig::cpu();
    let failed = failed_event(&*rig.device);
    let queue = queue(&rig.device, |config| config.max_pending_ops = 1);
    let slice = rig.buffer(10);
    let put = |after| {
        let ticket = queue.upload(&slice, &[1; 10], after).unwrap();
        let _ = queue.wait_for_completion(&ticket, LONG);
        ticket
    };
    let bad = || Some((failed.clone(), 1));
    let tickets = [put(None), put(bad()), put(None), put(bad()), put(None)];
    for (ticket, good) in tickets.iter().zip([true, false, true, false, true]) {
        let (event, value) = ticket.event();
        assert_eq!(event.wait(value, LONG).is_ok(), good, "ticket {}", ticket.id());
        assert_eq!(queue.wait_for_completion(ticket, LONG).is_ok(), good);
    }
}

#[test]
fn after_the_device_is_lost_everything_returns_at_once() {
    let device = Odd::discrete();
    let queue = queue(&(device.clone() as Arc<dyn Device>), |config| config.max_pending_ops = 2);
    let slice = buffer(&*device, 1000);
    device.lost.store(true, Ordering::SeqCst);
    let begin = std::time::Instant::now();
    for enabled in [true, false, true] {
        queue.set_enabled(enabled);
        for _ in 0..3 {
            let lost = |error| matches!(error, TransferError::Device(DeviceError::Lost(_)));
            assert!(lost(queue.upload(&slice, &[1; 1000], None).unwrap_err()));
            assert!(lost(queue.download(&slice, None).unwrap_err()));
        }
    }
    queue.wait_for_all(LONG).unwrap();
    assert!(begin.elapsed() < LONG / 2);
    let metrics = queue.get_metrics();
    assert_eq!((metrics.queue_depth, metrics.failed_transfers, metrics.timeouts), (0, 18, 0));
}

fn verifying() -> (Arc<Odd>, TransferQueue, Slice) {
    let device = Odd::discrete();
    let queue = queue(&(device.clone() as Arc<dyn Device>), |config| {
        (config.verify_checksums, config.max_pending_ops) = (true, 2);
    });
    let slice = buffer(&*device, 700_000);
    (device, queue, slice)
}

#[test]
fn a_damaged_upload_is_made_again_over_the_compute_queue() {
    let (device, queue, slice) = verifying();
    let data = noise(6, 700_000);
    queue.upload(&slice, &data, None).unwrap();
    assert_eq!(device.submissions.lock().unwrap().drain(..).collect::<Vec<_>>(), [QueueKind::Transfer; 3]);
    assert_eq!(queue.get_metrics().checksum_failures, 0);
    let data = noise(7, 700_000);
    device.damage.lock().unwrap().push_back(true);
    let ticket = queue.upload(&slice, &data, None).unwrap();
    assert!(queue.is_completed(&ticket) && read(&*device, &slice) == data);
    queue.wait_for_all(LONG).unwrap();
    let compute = |q: &&QueueKind| **q == QueueKind::Compute;
    assert_eq!(device.submissions.lock().unwrap().iter().filter(compute).count(), 3);
    let metrics = queue.get_metrics();
    assert_eq!((metrics.checksum_failures, metrics.plain_transfers, metrics.total_uploads), (1, 1, 2));
}

#[test]
fn an_upload_that_is_damaged_twice_names_the_place() {
    let (device, queue, slice) = verifying();
    let data = noise(8, 699_000);
    // Three pieces an attempt; the second of each is damaged.
    let piece = 262_144;
    device.damage.lock().unwrap().extend([false, true, false, false, true, false]);
    let error = queue.upload(&slice.slice(1000, 699_000).unwrap(), &data, None).unwrap_err();
    let TransferError::Checksum { direction, buffer, offset, bytes, expected, found } = error else {
        panic!("{error}")
    };
    assert_eq!((direction, buffer.as_str(), bytes), (Direction::Up, "test", piece));
    assert_eq!(offset, 1000 + piece);
    assert_ne!(expected, found);
    queue.wait_for_all(LONG).unwrap();
    let metrics = queue.get_metrics();
    assert_eq!((metrics.checksum_failures, metrics.total_uploads, metrics.queue_depth), (2, 0, 0));
    queue.upload(&slice, &noise(9, 700_000), None).unwrap();
    assert!(read(&*device, &slice) == noise(9, 700_000));
}

#[test]
fn a_store_of_the_host_is_verified_too() {
    for (unified, mapped) in [(true, true), (false, true)] {
        let device = Odd::new(cpu(), unified, mapped);
        let queue = queue(&(device.clone() as Arc<dyn Device>), |config| config.verify_checksums = true);
        let slice = buffer(&*device, 100);
        device.damage.lock().unwrap().push_back(true);
        queue.upload(&slice, &[5; 100], None).unwrap();
        assert!(read(&*device, &slice) == [5; 100]);
        let metrics = queue.get_metrics();
        assert_eq!((metrics.checksum_failures, metrics.plain_transfers, metrics.total_uploads), (1, 1, 1));
        queue.upload(&slice, &[6; 100], None).unwrap();
        assert_eq!(queue.get_metrics().zero_copy_uploads + queue.get_metrics().direct_uploads, 1);
    }
}

#[test]
fn a_damaged_download_is_made_again_over_the_compute_queue() {
    let odd = Odd::discrete();
    let fault = FaultDevice::new(odd.clone());
    let queue = queue(&(fault.clone() as Arc<dyn Device>), |config| {
        (config.verify_checksums, config.max_pending_ops) = (true, 2);
    });
    let (slice, data) = (buffer(&*odd, 700_000), noise(11, 700_000));
    odd.write(&slice, &data).unwrap();
    // Either of the two copies of a piece may be the damaged one.
    for round in 1..=20 {
        fault.next(Fault::TransferCorruption);
        let mut download = queue.download(&slice, None).unwrap();
        assert!(queue.is_completed(download.ticket()), "it has been compared");
        assert!(queue.wait_for_bytes(&mut download, LONG).unwrap() == data, "round {round}");
        let metrics = queue.get_metrics();
        let counted = (metrics.checksum_failures, metrics.plain_transfers, metrics.total_downloads);
        assert_eq!(counted, (round, round, round));
    }
    queue.wait_for_all(LONG).unwrap();
    assert_eq!(queue.get_metrics().queue_depth, 0);
}

#[test]
fn a_download_that_is_damaged_twice_names_the_place() {
    let (device, queue, slice) = verifying();
    // Each piece is read twice, up to the second one, which is damaged in both attempts.
    let attempt = [false, false, true, false];
    device.damage_reads.lock().unwrap().extend([attempt, attempt].concat());
    let error = queue.download(&slice, None).unwrap_err();
    assert!(
        error.to_string().starts_with("download of 262144 bytes at offset 262144 of buffer 'test'"),
        "{error}"
    );
    assert!(matches!(error, TransferError::Checksum { direction: Direction::Down, .. }));
    queue.wait_for_all(LONG).unwrap();
    let metrics = queue.get_metrics();
    assert_eq!((metrics.checksum_failures, metrics.total_downloads, metrics.queue_depth), (2, 0, 0));
    let mut download = queue.download(&slice, None).unwrap();
    assert!(queue.wait_for_bytes(&mut download, LONG).unwrap() == read(&*device, &slice));
}

#[test]
fn a_load_of_the_host_is_verified_too_and_so_is_the_plain_path() {
    let device = Odd::new(cpu(), true, true);
    let queue = queue(&(device.clone() as Arc<dyn Device>), |config| config.verify_checksums = true);
    let (slice, data) = (buffer(&*device, 100), noise(12, 100));
    device.write(&slice, &data).unwrap();
    for enabled in [true, false] {
        queue.set_enabled(enabled);
        for damaged in [[true, false], [false, true]] {
            device.damage_reads.lock().unwrap().extend(damaged);
            let mut download = queue.download(&slice, None).unwrap();
            assert!(queue.wait_for_bytes(&mut download, LONG).unwrap() == data);
        }
    }
    let metrics = queue.get_metrics();
    assert_eq!((metrics.checksum_failures, metrics.plain_transfers, metrics.zero_copy_downloads), (4, 4, 0));
}

#[test]
fn wrong_use_is_told() {
    let rig = Rig::cpu();
    let (ours, theirs) = (queue(&rig.device, |_| ()), queue(&rig.device, |_| ()));
    let slice = rig.buffer(10);
    let error = ours.upload(&slice, &[0; 9], None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "wrong use of the device: 9 bytes for 10 of buffer 'test': lengths must be equal"
    );
    let ticket = theirs.upload(&slice, &[0; 10], None).unwrap();
    let error = ours.wait_for_completion(&ticket, LONG).unwrap_err();
    assert!(error.to_string().contains("at the queue that gave it"), "{error}");
    let config = TransferQueueConfig { timeout_ms: 99, ..TransferQueueConfig::default() };
    let error = TransferQueue::new(rig.device.clone(), config).unwrap_err();
    assert!(matches!(&error, TransferQueueError::Config(e) if e.field == "blit_queue.timeout_ms"), "{error}");
}

#[test]
fn prefetching_is_bounded_can_be_off_and_forgets_what_failed() {
    let rig = Rig::cpu();
    let slice = rig.buffer(10);
    let arrays = [Prefetch { to: &slice, data: &[1; 10] }];
    let off = queue(&rig.device, |config| config.prefetch_enabled = false);
    assert!(!off.prefetch_next_batch(1, &arrays, None).unwrap());
    let queue = queue(&rig.device, |config| config.max_pending_ops = 3);
    queue.set_enabled(false);
    assert!(!queue.prefetch_next_batch(1, &arrays, None).unwrap());
    queue.set_enabled(true);
    for batch in 1..=4 {
        assert!(queue.prefetch_next_batch(batch, &arrays, None).unwrap());
    }
    assert!(queue.take_prefetched(1).is_none(), "three are remembered");
    assert!(queue.take_prefetched(2).is_some());
    // One of the same number takes its place.
    assert!(queue.prefetch_next_batch(4, &arrays, None).unwrap());
    assert!(queue.take_prefetched(3).is_some() && queue.take_prefetched(4).is_some());
    let failed = failed_event(&*rig.device);
    assert!(queue.prefetch_next_batch(5, &arrays, Some(&(failed, 1))).unwrap());
    queue.wait_for_all(LONG).unwrap();
    assert!(queue.take_prefetched(5).is_none(), "it is known to have failed");
    let metrics = queue.get_metrics();
    assert_eq!((metrics.prefetches, metrics.prefetch_hits, metrics.prefetch_misses), (6, 3, 2));
}
