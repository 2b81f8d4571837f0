//! Wrong use is refused with a message that helps, by the CPU device and by the no-op device alike.

mod kernels;

use std::sync::Arc;

use bessemer_hal::noop::NoopDevice;
use bessemer_hal::*;
use kernels::*;

fn both() -> [Arc<dyn Device>; 2] {
    [cpu(2), NoopDevice::new(Some(1 << 30))]
}

#[test]
fn a_hazard_names_both_commands_and_the_buffer() {
    for device in both() {
        let (increments, scales) =
            (pipeline(&*device, "increment", increment), pipeline(&*device, "scale", scale));
        let (a, b) = (buffer(&*device, &[1; 8]), buffer(&*device, &[2; 8]));
        let mut e = device.create_encoder("step").unwrap();
        e.dispatch(&over_row(&increments, &a, 2)).unwrap();
        // Read after write.
        let rule = usage(e.dispatch(&scaling(&scales, &a.whole(), &b.whole(), 1, 8)));
        for part in ["'step'", "command 1", "'scale'", "command 0", "'increment'", "values", "barrier"] {
            assert!(rule.contains(part), "{part:?} is missing in {rule:?}");
        }
        assert!(rule.contains(&format!("#{}", a.id())), "{rule}");
        // The refused launch left no trace: its output is still free, and so is everything after a barrier.
        e.dispatch(&over_row(&increments, &b, 2)).unwrap();
        // Write after write, also by a copy.
        usage(e.dispatch(&over_row(&increments, &a, 8)));
        usage(e.copy(&a.slice(0, 4).unwrap(), &b.slice(0, 4).unwrap()));
        e.barrier();
        e.dispatch(&scaling(&scales, &a.whole(), &b.whole(), 1, 8)).unwrap();
        // Write after read, of one element only; reading the same bytes again is no conflict.
        let c = buffer(&*device, &[0; 8]);
        usage(e.copy(&c.slice(8, 4).unwrap(), &a.slice(28, 4).unwrap()));
        e.copy(&a.whole(), &c.whole()).unwrap();
        let commands = e.finish().unwrap();
        run(&*device, &commands).unwrap();
    }
}

#[test]
fn aliasing_buffers_are_one_memory() {
    for device in both() {
        let increments = pipeline(&*device, "increment", increment);
        let heap = device.create_heap(&HeapDesc { label: "heap", size: 256 }).unwrap();
        let place = |label, offset, size| {
            device.create_buffer(&BufferDesc { label, size, place: Place::Heap(&heap, offset) }).unwrap()
        };
        let (low, high, all) = (place("low", 0, 128), place("high", 128, 128), place("all", 0, 256));
        let mut e = device.create_encoder("alias").unwrap();
        e.dispatch(&over_row(&increments, &low, 8)).unwrap();
        e.dispatch(&over_row(&increments, &high, 8)).unwrap();
        let rule = usage(e.dispatch(&over_row(&increments, &all, 8)));
        assert!(rule.contains("'increment'") && rule.contains("all"), "{rule}");
    }
}

#[test]
fn staging_is_the_one_memory_there_is() {
    for device in both() {
        let staged = device.create_buffer(&BufferDesc::staging("staged", 4096)).unwrap();
        assert!(device.allocated() >= 4096);
        let x = buffer(&*device, &[0; 8]);
        put(&*device, &staged, &[7; 1024]);
        let commands =
            record(&*device, "up", |e| e.copy(&staged.slice(64, 32).unwrap(), &x.whole()).unwrap());
        run(&*device, &commands).unwrap();
        if device.info().backend == Backend::Cpu {
            assert_eq!(get(&*device, &x), [7; 8]);
        }
    }
}

#[test]
fn a_launch_may_not_write_what_it_also_binds() {
    for device in both() {
        let scales = pipeline(&*device, "scale", scale);
        let x = buffer(&*device, &[0; 16]);
        let mut e = device.create_encoder("overlap").unwrap();
        let (low, high) = (x.slice(0, 32).unwrap(), x.slice(28, 32).unwrap());
        let rule = usage(e.dispatch(&scaling(&scales, &low, &high, 1, 8)));
        assert!(rule.contains("overlaps"), "{rule}");
        usage(e.copy(&low, &high));
        let apart = x.slice(32, 32).unwrap();
        e.dispatch(&scaling(&scales, &low, &apart, 1, 8)).unwrap();
    }
}

#[test]
fn tilings_fit_their_slice_and_the_workgroups() {
    for device in both() {
        let increments = pipeline(&*device, "increment", increment);
        let x = buffer(&*device, &[0; 16]);
        let mut e = device.create_encoder("tilings").unwrap();
        let good = over_row(&increments, &x, 4);
        let with = |tiling, groups| Dispatch {
            bindings: vec![Binding::write(x.whole(), tiling)],
            groups,
            ..good.clone()
        };
        for (dispatch, part) in [
            (Dispatch { groups: [5, 1, 1], ..good.clone() }, "5 workgroups"),
            (with(Tiling::whole(65, 1), [1, 1, 1]), "65 × 1"),
            (with(Tiling::whole(usize::MAX, 3), [1, 1, 1]), "does not fit"),
            (with(Tiling::by_rows(4, 4, 0), [4, 1, 1]), "at least 1"),
            (Dispatch { params: vec![0; 129], ..good.clone() }, "129 bytes"),
            (Dispatch { bindings: vec![Binding::read(x.whole()); 33], ..good.clone() }, "33 bindings"),
        ] {
            let rule = usage(e.dispatch(&dispatch));
            assert!(rule.contains(part) && rule.contains("'increment'"), "{part:?} is missing in {rule:?}");
        }
        e.dispatch(&good).unwrap();
    }
}

#[test]
fn things_of_another_device_are_refused() {
    for (device, other) in [(cpu(1), cpu(1)), (cpu(1), both()[1].clone())] {
        let (ours, theirs) =
            (pipeline(&*device, "increment", increment), pipeline(&*other, "increment", increment));
        let (x, y) = (buffer(&*device, &[0]), other.create_buffer(&BufferDesc::own("theirs", 4)).unwrap());
        let heap = other.create_heap(&HeapDesc { label: "theirs", size: 64 }).unwrap();
        let mut e = device.create_encoder("mixed").unwrap();
        usage(e.dispatch(&over_row(&theirs, &x, 1)));
        usage(e.dispatch(&over_row(&ours, &y, 1)));
        usage(e.copy(&x.whole(), &y.whole()));
        usage(device.write(&y.whole(), &[0; 4]));
        usage(device.create_buffer(&BufferDesc { label: "p", size: 4, place: Place::Heap(&heap, 0) }));
        let foreign = record(&*other, "foreign", |_| {});
        usage(device.submit(QueueKind::Compute, Submit::new(&foreign)));
    }
}

#[test]
fn the_transfer_queue_takes_no_dispatch() {
    for device in both() {
        let increments = pipeline(&*device, "increment", increment);
        let x = buffer(&*device, &[0]);
        let commands = record(&*device, "kernel", |e| e.dispatch(&over_row(&increments, &x, 1)).unwrap());
        let rule = usage(device.submit(QueueKind::Transfer, Submit::new(&commands)));
        assert!(rule.contains("compute queue"), "{rule}");
    }
}

#[test]
fn host_access_has_the_length_of_its_slice() {
    for device in both() {
        let x = buffer(&*device, &[0; 4]);
        usage(device.write(&x.whole(), &[0; 15]));
        usage(device.read(&x.slice(0, 8).unwrap(), &mut [0; 9]));
        usage(x.slice(12, 5));
        usage(x.slice(u64::MAX, 2));
    }
}

#[test]
fn memory_is_counted_and_bounded() {
    for device in both() {
        let device = &*device;
        assert_eq!(device.allocated(), 0);
        let heap = device.create_heap(&HeapDesc { label: "heap", size: 512 << 20 }).unwrap();
        let placed = BufferDesc { label: "placed", size: 100, place: Place::Heap(&heap, 64) };
        let placed = device.create_buffer(&placed).unwrap();
        let own = device.create_buffer(&BufferDesc::own("own", 1000)).unwrap();
        assert_eq!(device.allocated(), (512 << 20) + 1000);
        let refused = device.create_heap(&HeapDesc { label: "second", size: 512 << 20 }).unwrap_err();
        let DeviceError::OutOfMemory { what, requested, available } = refused else { panic!("{refused}") };
        assert_eq!((what.as_str(), requested, available), ("heap 'second'", 512 << 20, (512 << 20) - 1000));
        assert!(matches!(
            device.create_buffer(&BufferDesc::own("huge", u64::MAX)),
            Err(DeviceError::OutOfMemory { .. })
        ));
        // A buffer holds its heap, and a recorded command its buffer.
        drop(heap);
        let commands = record(device, "hold", |e| {
            e.copy(&own.slice(0, 100).unwrap(), &placed.whole()).unwrap();
        });
        drop((placed, own));
        assert_eq!(device.allocated(), (512 << 20) + 1000);
        run(device, &commands).unwrap();
        drop(commands);
        assert_eq!(device.allocated(), 0);
    }
}

#[test]
fn buffers_lie_inside_their_heap_on_alignment() {
    for device in both() {
        let heap = device.create_heap(&HeapDesc { label: "heap", size: 256 }).unwrap();
        let place = |offset, size| {
            device.create_buffer(&BufferDesc { label: "b", size, place: Place::Heap(&heap, offset) })
        };
        assert!(usage(place(0, 257)).contains("256 bytes"));
        assert!(usage(place(256, 1)).contains("leaves its heap"));
        assert!(usage(place(u64::MAX, 2)).contains("leaves its heap"));
        assert!(usage(place(32, 4)).contains("multiple of 64"));
        place(192, 64).unwrap();
        place(256, 0).unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "an interpreter does not know the physical memory")]
fn the_noop_device_counts_and_completes_at_once() {
    let device = NoopDevice::new(None);
    let increments = pipeline(&*device, "increment", increment);
    let x = buffer(&*device, &[5; 8]);
    let commands = record(&*device, "counted", |e| {
        e.dispatch(&over_row(&increments, &x, 1)).unwrap();
        e.barrier();
        e.copy(&x.slice(0, 4).unwrap(), &x.slice(4, 4).unwrap()).unwrap();
    });
    let event = device.create_event(0).unwrap();
    let submit = Submit { signal: &[(event.clone(), 3)], ..Submit::new(&commands) };
    for _ in 0..2 {
        let done = device.submit(QueueKind::Compute, submit).unwrap();
        assert!(matches!(done.poll(), Some(Ok(_))));
    }
    assert_eq!(event.value(), Ok(3));
    assert_eq!(device.submissions(), 2);
    assert_eq!(device.submitted(), noop::Counts { dispatches: 2, copies: 2, barriers: 2 });
    assert_eq!(get(&*device, &x), [0; 8]);
}
