//! Heaps, buffers, copies, and the host's way to them.

use bessemer_hal::vulkan::VulkanOptions;
use bessemer_hal::*;

use crate::support::*;

/// The device with its memory mapped, where it can be, and with staging.
fn both() -> Vec<Checked> {
    let Some(options) = options() else { return vec![] };
    vec![open_with(&options), open_with(&VulkanOptions { prefer_staging: true, ..options })]
}

#[test]
fn what_was_written_is_read() {
    for device in both() {
        // Several chunks of the staging ring, the last one short.
        let count = 9_500_001_usize;
        let values: Vec<u32> = (0..count as u32).map(|i| i.wrapping_mul(0x9E37_79B1)).collect();
        let x = buffer(&*device, &values);
        assert!(get(&*device, &x) == values);
        // Any byte of it.
        device.write(&x.slice(5, 3).unwrap(), &[1, 2, 3]).unwrap();
        let mut bytes = [0; 8];
        device.read(&x.slice(4, 8).unwrap(), &mut bytes).unwrap();
        let (one, two) = (values[1].to_ne_bytes(), values[2].to_ne_bytes());
        assert_eq!(bytes, [one[0], 1, 2, 3, two[0], two[1], two[2], two[3]]);
    }
}

#[test]
fn the_host_and_the_gpu_see_each_others_bytes() {
    for device in both() {
        let increments = pipeline(&*device, "increment", INCREMENT);
        let x = buffer(&*device, &[0; 300]);
        let commands =
            record(&*device, "increment", |e| e.dispatch(&incrementing(&increments, &x.whole())).unwrap());
        for round in 0..50 {
            put(&*device, &x, &[round; 300]);
            run(&*device, &commands).unwrap();
            assert_eq!(get(&*device, &x), [round + 1; 300]);
        }
    }
}

#[test]
fn copies_move_every_byte_on_both_queues() {
    for device in both() {
        let count = 1_500_000;
        let values: Vec<u32> = (0..count).collect();
        let (a, b) = (buffer(&*device, &values), buffer(&*device, &vec![7; values.len()]));
        let offset = 4 * 3;
        let from = a.slice(0, a.size() - offset).unwrap();
        let to = b.slice(offset, b.size() - offset).unwrap();
        let commands = record(&*device, "copy", |e| e.copy(&from, &to).unwrap());
        let expected: Vec<u32> = [7, 7, 7].into_iter().chain(0..count - 3).collect();
        for queue in [QueueKind::Compute, QueueKind::Transfer] {
            put(&*device, &b, &vec![7; values.len()]);
            device.submit(queue, Submit::new(&commands)).unwrap().wait(LONG).unwrap();
            assert!(get(&*device, &b) == expected, "{queue:?}");
        }
    }
}

#[test]
fn aliasing_buffers_are_one_memory() {
    for device in both() {
        let increments = pipeline(&*device, "increment", INCREMENT);
        let step = device.info().limits.alignment.max(256);
        let heap = device.create_heap(&HeapDesc { label: "heap", size: 2 * step }).unwrap();
        let place = |label, offset, size| {
            device.create_buffer(&BufferDesc { label, size, place: Place::Heap(&heap, offset) }).unwrap()
        };
        let (low, high, all) = (place("low", 0, step), place("high", step, step), place("all", 0, 2 * step));
        let words = step as usize / 4;
        put(&*device, &all, &vec![5; 2 * words]);
        let commands = record(&*device, "alias", |e| {
            e.dispatch(&incrementing(&increments, &low.whole())).unwrap();
            e.dispatch(&incrementing(&increments, &high.whole())).unwrap();
            e.barrier();
            e.dispatch(&incrementing(&increments, &high.whole())).unwrap();
        });
        // Held on the host, so that what it uses is in use.
        let go = device.create_event(0).unwrap();
        let submit = Submit { wait: &[(go.clone(), 1)], ..Submit::new(&commands) };
        let submission = device.submit(QueueKind::Compute, submit).unwrap();
        usage(device.read(&all.slice(step, 4).unwrap(), &mut [0; 4]));
        go.signal(1);
        submission.wait(LONG).unwrap();
        assert_eq!(get(&*device, &all), [vec![6; words], vec![7; words]].concat());
    }
}

#[test]
fn bytes_go_through_staging_on_both_queues() {
    for device in both() {
        let increments = pipeline(&*device, "increment", INCREMENT);
        let values: Vec<u32> = (0..1_100_000).collect();
        let x = buffer(&*device, &values);
        let staged = device.create_buffer(&BufferDesc::staging("staged", x.size())).unwrap();
        let up = record(&*device, "up", |e| e.copy(&staged.whole(), &x.whole()).unwrap());
        let down = record(&*device, "down", |e| e.copy(&x.whole(), &staged.whole()).unwrap());
        for (round, queue) in [(1, QueueKind::Transfer), (2, QueueKind::Compute)] {
            let sent: Vec<u32> = values.iter().map(|value| value * 3 + round).collect();
            put(&*device, &staged, &sent);
            device.submit(queue, Submit::new(&up)).unwrap().wait(LONG).unwrap();
            assert!(get(&*device, &x) == sent, "{queue:?}");
            put(&*device, &x, &values);
            device.submit(queue, Submit::new(&down)).unwrap().wait(LONG).unwrap();
            assert!(get(&*device, &staged) == values, "{queue:?}");
        }
        // A kernel may use it too.
        let small = device.create_buffer(&BufferDesc::staging("small", 1200)).unwrap();
        put(&*device, &small, &[4; 300]);
        let commands = record(&*device, "increment", |e| {
            e.dispatch(&incrementing(&increments, &small.whole())).unwrap()
        });
        run(&*device, &commands).unwrap();
        assert_eq!(get(&*device, &small), [5; 300]);
        // What is under way is not touched.
        let go = device.create_event(0).unwrap();
        let submit = Submit { wait: &[(go.clone(), 1)], ..Submit::new(&down) };
        let submission = device.submit(QueueKind::Transfer, submit).unwrap();
        usage(device.read(&staged.slice(8, 4).unwrap(), &mut [0; 4]));
        go.signal(1);
        submission.wait(LONG).unwrap();
    }
}

/// It counts where it is the device's memory too, and nowhere else.
#[test]
fn staging_counts_where_there_is_one_memory() {
    let Some(options) = options() else { return };
    let checked = open_with(&VulkanOptions { memory_budget: Some(64 << 20), ..options });
    let device = &*checked;
    let staged = device.create_buffer(&BufferDesc::staging("staged", 1 << 20)).unwrap();
    let large = device.create_buffer(&BufferDesc::staging("large", 65 << 20));
    if device.info().limits.unified_memory {
        assert!(device.allocated() >= 1 << 20);
        assert!(matches!(large, Err(DeviceError::OutOfMemory { .. })));
    } else {
        assert_eq!(device.allocated(), 0);
        large.unwrap();
    }
    device.create_buffer(&BufferDesc::staging("nothing", 0)).unwrap();
    drop(staged);
    assert_eq!(device.allocated(), 0);
}

#[test]
fn memory_is_counted_and_bounded() {
    let Some(options) = options() else { return };
    let checked = open_with(&VulkanOptions { memory_budget: Some(64 << 20), ..options });
    let device = &*checked;
    assert_eq!((device.info().limits.memory_budget, device.allocated()), (64 << 20, 0));
    let heap = device.create_heap(&HeapDesc { label: "heap", size: 32 << 20 }).unwrap();
    let alignment = device.info().limits.alignment;
    let placed = BufferDesc { label: "placed", size: 100, place: Place::Heap(&heap, alignment) };
    let placed = device.create_buffer(&placed).unwrap();
    let own = device.create_buffer(&BufferDesc::own("own", 1000)).unwrap();
    let held = device.allocated();
    assert!(((32 << 20) + 1000..(32 << 20) + 1000 + alignment.max(4096)).contains(&held), "{held}");
    let refused = device.create_heap(&HeapDesc { label: "second", size: 32 << 20 }).unwrap_err();
    let DeviceError::OutOfMemory { what, requested, available } = refused else { panic!("{refused}") };
    assert_eq!((what.as_str(), requested), ("heap 'second'", 32 << 20));
    assert!(available <= (64 << 20) - held);
    for size in [u64::MAX, u64::MAX / 2, 1 << 40] {
        let refused = device.create_buffer(&BufferDesc::own("huge", size)).unwrap_err();
        assert!(
            matches!(refused, DeviceError::OutOfMemory { requested, .. } if requested == size),
            "{refused}"
        );
    }
    assert_eq!(device.allocated(), held);
    // A buffer holds its heap, a recorded command its buffer, and a submission its commands.
    drop(heap);
    let commands = record(device, "hold", |e| {
        e.copy(&own.slice(0, 100).unwrap(), &placed.whole()).unwrap();
    });
    drop((placed, own));
    assert_eq!(device.allocated(), held);
    let go = device.create_event(0).unwrap();
    let submit = Submit { wait: &[(go.clone(), 1)], ..Submit::new(&commands) };
    let submission = device.submit(QueueKind::Compute, submit).unwrap();
    drop(commands);
    assert_eq!(device.allocated(), held);
    go.signal(1);
    submission.wait(LONG).unwrap();
    assert_eq!(device.allocated(), 0);
}

#[test]
fn buffers_lie_inside_their_heap_on_alignment() {
    let Some(device) = device() else { return };
    let alignment = device.info().limits.alignment;
    // A heap whose size is no multiple of the alignment holds a buffer to its last byte.
    let size = 4 * alignment + 7;
    let heap = device.create_heap(&HeapDesc { label: "heap", size }).unwrap();
    assert_eq!(heap.size(), size);
    let place = |offset, size| {
        device.create_buffer(&BufferDesc { label: "b", size, place: Place::Heap(&heap, offset) })
    };
    assert!(usage(place(0, size + 1)).contains(&format!("{size} bytes")));
    assert!(usage(place(4 * alignment, 8)).contains("leaves its heap"));
    assert!(usage(place(u64::MAX, 2)).contains("leaves its heap"));
    assert!(usage(place(alignment / 2, 4)).contains(&format!("multiple of {alignment}")));
    let last = place(3 * alignment, alignment + 7).unwrap();
    device.write(&last.whole(), &vec![9; alignment as usize + 7]).unwrap();
    place(4 * alignment, 0).unwrap();
}
