//! Wrong use is refused with a message that helps.

use bessemer_hal::*;

use crate::support::*;

#[test]
fn a_launch_may_not_write_what_it_also_binds() {
    let Some(device) = device() else { return };
    let scales = pipeline(&*device, "scale", SCALE);
    let x = buffer(&*device, &[0; 64]);
    let mut e = device.create_encoder("overlap").unwrap();
    let (low, high) = (x.slice(0, 128).unwrap(), x.slice(64, 128).unwrap());
    let rule = usage(e.dispatch(&scaling(&scales, &low, &high, 1)));
    for part in ["'scale'", "'overlap'", "binding 0", "overlaps", "binding 1", "values"] {
        assert!(rule.contains(part), "{part:?} is missing in {rule:?}");
    }
    assert!(usage(e.copy(&low, &high)).contains("overlaps"));
    assert!(usage(e.copy(&low, &x.whole())).contains("equal"));
    let apart = x.slice(128, 128).unwrap();
    e.dispatch(&scaling(&scales, &low, &apart, 1)).unwrap();
}

#[test]
fn launches_fit_their_shader_and_the_device() {
    let Some(device) = device() else { return };
    let scales = pipeline(&*device, "scale", SCALE);
    let (x, y) = (buffer(&*device, &[0; 64]), buffer(&*device, &[0; 64]));
    let mut e = device.create_encoder("launches").unwrap();
    let good = scaling(&scales, &x.whole(), &y.whole(), 1);
    let most = device.info().limits.gpu.unwrap().max_groups;
    let with = |bindings| Dispatch { bindings, ..good.clone() };
    let read = |s: Slice| Binding::read(s);
    for (dispatch, part) in [
        (Dispatch { params: vec![0; 4], ..good.clone() }, "4 bytes of parameters; the shader has 8"),
        (Dispatch { params: vec![0; 129], ..good.clone() }, "129 bytes"),
        (Dispatch { groups: [1, most[1].saturating_add(1), 1], ..good.clone() }, "workgroups"),
        (with(vec![read(x.whole()); 33]), "33 bindings"),
        (with(vec![Binding::write_any(y.whole())]), "1 bindings; the shader has 2"),
        (with(vec![read(y.whole()), read(x.whole())]), "bind it as written"),
        (
            with(vec![Binding::write_any(y.whole()), read(x.slice(4, 64).unwrap())]),
            "offset 4 is not a multiple",
        ),
    ] {
        let rule = usage(e.dispatch(&dispatch));
        assert!(rule.contains(part) && rule.contains("'scale'"), "{part:?} is missing in {rule:?}");
    }
    e.dispatch(&good).unwrap();
    // The refused ones left no trace.
    let commands = e.finish().unwrap();
    run(&*device, &commands).unwrap();
    assert_eq!(get(&*device, &y), [1; 64]);
}

#[test]
fn a_binding_is_no_longer_than_the_device_takes() {
    let Some(device) = device() else { return };
    let increments = pipeline(&*device, "increment", INCREMENT);
    let most = device.info().limits.max_buffer_size;
    if most > 512 << 20 {
        return;
    }
    let x = device.create_buffer(&BufferDesc::own("long", most + 4)).unwrap();
    let mut e = device.create_encoder("long").unwrap();
    let mut dispatch = incrementing(&increments, &x.slice(0, 256).unwrap());
    e.dispatch(&dispatch).unwrap();
    dispatch.bindings[0].slice = x.whole();
    assert!(usage(e.dispatch(&dispatch)).contains(&format!("binds at most {most}")));
}

#[test]
fn things_of_another_device_are_refused() {
    let (Some(device), Some(other)) = (device(), device()) else { return };
    let (ours, theirs) =
        (pipeline(&*device, "increment", INCREMENT), pipeline(&*other, "increment", INCREMENT));
    let (x, y) = (buffer(&*device, &[0; 64]), buffer(&*other, &[0; 64]));
    let heap = other.create_heap(&HeapDesc { label: "theirs", size: 4096 }).unwrap();
    let mut e = device.create_encoder("mixed").unwrap();
    usage(e.dispatch(&incrementing(&theirs, &x.whole())));
    usage(e.dispatch(&incrementing(&ours, &y.whole())));
    usage(e.copy(&x.whole(), &y.whole()));
    usage(device.write(&y.whole(), &[0; 256]));
    usage(device.read(&y.whole(), &mut [0; 256]));
    usage(device.create_buffer(&BufferDesc { label: "p", size: 4, place: Place::Heap(&heap, 0) }));
    let foreign = record(&*other, "foreign", |_| {});
    usage(device.submit(QueueKind::Compute, Submit::new(&foreign)));
    let own = record(&*device, "own", |_| {});
    let event = other.create_event(0).unwrap();
    for submit in [
        Submit { wait: &[(event.clone(), 0)], ..Submit::new(&own) },
        Submit { signal: &[(event.clone(), 1)], ..Submit::new(&own) },
    ] {
        assert!(usage(device.submit(QueueKind::Compute, submit)).contains("event"));
    }
}

#[test]
fn the_transfer_queue_takes_no_dispatch() {
    let Some(device) = device() else { return };
    let increments = pipeline(&*device, "increment", INCREMENT);
    let x = buffer(&*device, &[0]);
    let commands =
        record(&*device, "kernel", |e| e.dispatch(&incrementing(&increments, &x.whole())).unwrap());
    let rule = usage(device.submit(QueueKind::Transfer, Submit::new(&commands)));
    assert!(rule.contains("compute queue") && rule.contains("'kernel'"), "{rule}");
}

#[test]
fn host_access_has_the_length_of_its_slice() {
    let Some(device) = device() else { return };
    let x = buffer(&*device, &[0; 4]);
    usage(device.write(&x.whole(), &[0; 15]));
    usage(device.read(&x.slice(0, 8).unwrap(), &mut [0; 9]));
}

#[test]
fn a_pipeline_that_cannot_be_built_says_why() {
    let Some(device) = device() else { return };
    let good = shader("good", INCREMENT, None);
    let limits = device.info().limits.gpu.unwrap();
    let copy = |change: fn(&mut Shader)| {
        let mut shader = Shader {
            name: good.name,
            spirv: good.spirv,
            msl: "",
            msl_entry: "",
            workgroup: good.workgroup,
            bindings: good.bindings,
            written: good.written,
            params: good.params,
            threadgroup: &[],
            requires: good.requires,
        };
        change(&mut shader);
        Code::Gpu(Box::leak(Box::new(shader)))
    };
    fn function(_: &mut cpu::Invocation<'_>) {}
    let mut cases = vec![
        (Code::Cpu(function), "GPU form"),
        (copy(|s| s.spirv = &[]), "no SPIR-V"),
        (copy(|s| s.spirv = &[1, 2, 3, 4]), "damaged"),
        (copy(|s| s.workgroup = [1 << 20, 1, 1]), "too large"),
        (copy(|s| s.threadgroup = &[1 << 30]), "workgroup memory"),
        (copy(|s| s.params = 1 << 20), "parameters"),
    ];
    if !limits.cooperative_matrix {
        cases.push((copy(|s| s.requires.cooperative_matrix = true), "cooperative matrices"));
    }
    for (code, part) in cases {
        let refused = device.create_pipeline(&PipelineDesc { label: "bad", code }).unwrap_err();
        let DeviceError::Pipeline { label, reason } = refused else { panic!("{refused}") };
        assert!(label == "bad" && reason.contains(part), "{part:?} is missing in {reason:?}");
    }
}
