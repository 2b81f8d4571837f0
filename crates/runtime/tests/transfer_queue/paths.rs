//! Which way a transfer takes.

use std::sync::Arc;

use bessemer_hal::{Device, DeviceError, QueueKind, Submit};
use bessemer_runtime::TransferError;

use super::support::*;

fn submissions(device: &Odd) -> Vec<QueueKind> {
    device.submissions.lock().unwrap().drain(..).collect()
}

#[test]
fn one_memory_is_stored_to_and_nothing_is_submitted() {
    let device = Odd::new(cpu(), true, true);
    let queue = queue(&(device.clone() as Arc<dyn Device>), |_| ());
    let slice = buffer(&*device, 300_000);
    let before = device.allocated();
    let data = noise(1, 300_000);
    let ticket = queue.upload(&slice, &data, None).unwrap();
    assert!(queue.is_completed(&ticket) && read(&*device, &slice) == data);
    let (event, value) = ticket.event();
    event.wait(value, SHORT).unwrap();
    let mut back = queue.download(&slice, Some((event, value))).unwrap();
    assert!(queue.is_completed(back.ticket()));
    assert!(queue.wait_for_bytes(&mut back, SHORT).unwrap() == data);
    assert_eq!((submissions(&device), device.allocated()), (vec![], before), "no staging is reserved");
    let metrics = queue.get_metrics();
    assert_eq!((metrics.zero_copy_uploads, metrics.zero_copy_downloads), (1, 1));
    assert_eq!((metrics.total_uploads, metrics.bytes_up, metrics.sync_wait_count), (1, 300_000, 0));
    assert_eq!((metrics.direct_uploads, metrics.plain_transfers), (0, 0));
}

#[test]
fn one_memory_is_not_stored_to_before_its_event() {
    let device = Odd::new(cpu(), true, true);
    let queue = queue(&(device.clone() as Arc<dyn Device>), |_| ());
    let (slice, gate) = (buffer(&*device, 100), device.create_event(0).unwrap());
    let first = queue.upload(&slice, &[1; 100], Some((gate.clone(), 1))).unwrap();
    let mut between = queue.download(&slice, None).unwrap();
    // Of the same bytes, so it comes behind, though it waits for nothing itself.
    let second = queue.upload(&slice, &[2; 100], None).unwrap();
    assert!(!queue.is_completed(&first) && !queue.is_completed(&second));
    gate.signal(1);
    assert!(queue.wait_for_bytes(&mut between, LONG).unwrap() == [1; 100]);
    queue.wait_for_completion(&second, LONG).unwrap();
    assert!(read(&*device, &slice) == [2; 100]);
    assert_eq!(submissions(&device), [QueueKind::Transfer; 3]);
    assert_eq!(queue.get_metrics().zero_copy_uploads, 0);
}

#[test]
fn few_bytes_are_stored_through_a_mapping_and_more_are_copied() {
    for (limit, stored) in [(0, [false; 3]), (100, [true, true, false])] {
        let device = Odd::new(cpu(), false, true);
        let queue = queue(&(device.clone() as Arc<dyn Device>), |config| config.direct_write_bytes = limit);
        for (size, stored) in [99, 100, 101].into_iter().zip(stored) {
            let slice = buffer(&*device, size);
            let data = noise(size, size as usize);
            let ticket = queue.upload(&slice, &data, None).unwrap();
            queue.wait_for_completion(&ticket, LONG).unwrap();
            assert!(read(&*device, &slice) == data);
            assert_eq!(submissions(&device).is_empty(), stored, "{size} bytes, limit {limit}");
        }
        let expected = stored.iter().filter(|s| **s).count() as u64;
        assert_eq!(queue.get_metrics().direct_uploads, expected);
    }
}

#[test]
fn without_a_mapping_few_bytes_are_copied() {
    let device = Odd::discrete();
    let queue = queue(&(device.clone() as Arc<dyn Device>), |_| ());
    let slice = buffer(&*device, 4);
    queue.upload(&slice, &[1; 4], None).unwrap();
    assert_eq!(submissions(&device), [QueueKind::Transfer]);
}

#[test]
fn switched_off_each_copy_goes_on_the_compute_queue_and_is_waited_for() {
    for unified in [true, false] {
        let device = Odd::new(cpu(), unified, unified);
        let queue = queue(&(device.clone() as Arc<dyn Device>), |_| ());
        queue.set_enabled(false);
        assert!(!queue.is_enabled());
        let slice = buffer(&*device, 1000);
        let data = noise(2, 1000);
        let ticket = queue.upload(&slice, &data, None).unwrap();
        assert!(queue.is_completed(&ticket));
        let mut back = queue.download(&slice, None).unwrap();
        assert_eq!(queue.get_metrics().queue_depth, 0, "it was waited for");
        assert!(queue.wait_for_bytes(&mut back, SHORT).unwrap() == data);
        assert_eq!(submissions(&device), [QueueKind::Compute; 2]);
        let metrics = queue.get_metrics();
        assert_eq!((metrics.plain_transfers, metrics.zero_copy_uploads), (2, 0));
    }
}

#[test]
fn switched_off_an_event_that_never_comes_does_not_stop_the_compute_queue() {
    let rig = Rig::cpu();
    let queue = queue(&rig.device, |config| config.timeout_ms = 100);
    queue.set_enabled(false);
    let (a, b) = (rig.buffer(40), rig.buffer(40));
    let never = rig.device.create_event(0).unwrap();
    assert!(queue.upload(&a, &[1; 40], Some((never, 1))).unwrap_err().is_timeout());
    let commands = rig.scaling(&a, &b, 1).unwrap();
    rig.device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap().wait(LONG).unwrap();
    assert_eq!(queue.get_metrics().queue_depth, 0);
}

#[test]
fn a_store_to_bytes_that_compute_uses_is_refused() {
    let rig = Rig::cpu();
    let device = Odd::new(rig.device.clone(), true, true);
    let queue = queue(&(device.clone() as Arc<dyn Device>), |_| ());
    let (a, b, gate) = (rig.buffer(40), rig.buffer(40), device.create_event(0).unwrap());
    let commands = rig.scaling(&a, &b, 1).unwrap();
    let submit = Submit { wait: &[(gate.clone(), 1)], ..Submit::new(&commands) };
    let compute = device.submit(QueueKind::Compute, submit).unwrap();
    let error = queue.upload(&a, &[1; 40], None).unwrap_err();
    assert!(matches!(&error, TransferError::Device(DeviceError::Usage(_))), "{error}");
    gate.signal(1);
    compute.wait(LONG).unwrap();
    queue.upload(&a, &[1; 40], None).unwrap();
}

#[test]
fn a_device_with_one_memory_maps_it() {
    let devices: [Arc<dyn Device>; 2] = [cpu(), bessemer_hal::noop::NoopDevice::new(None)];
    for device in devices {
        let limits = &device.info().limits;
        assert!(limits.unified_memory && limits.mapped);
    }
    // As the tests on Vulkan find: without mapping there is neither.
    for rig in Rig::all() {
        let limits = &rig.device.info().limits;
        assert!(!limits.unified_memory && !limits.mapped);
    }
}
