//! What a dispatch computes, alone and in sequence.

use bessemer_hal::*;

use crate::support::*;

#[test]
fn stages_see_what_earlier_stages_wrote() {
    const STEPS: u32 = 50;
    let Some(device) = device() else { return };
    let scales = pipeline(&*device, "scale", SCALE);
    for len in [1, 64, 1000] {
        let start: Vec<u32> = (0..len).collect();
        let (a, b) = (buffer(&*device, &start), buffer(&*device, &start));
        let commands = record(&*device, "chain", |e| {
            for step in 0..STEPS {
                let (from, to) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
                e.dispatch(&scaling(&scales, &from.whole(), &to.whole(), step + 2)).unwrap();
                e.barrier();
            }
        });
        let mut expected = start;
        for _ in 0..3 {
            run(&*device, &commands).unwrap();
            for step in 0..STEPS {
                expected.iter_mut().for_each(|x| *x = x.wrapping_mul(step + 2).wrapping_add(1));
            }
            assert_eq!(get(&*device, &a), expected, "{len} elements");
        }
    }
}

#[test]
fn commands_of_one_stage_all_run() {
    let Some(device) = device() else { return };
    let increments = pipeline(&*device, "increment", INCREMENT);
    let buffers: Vec<_> = (0..50).map(|i| buffer(&*device, &vec![i; 1 + i as usize * 3])).collect();
    let commands = record(&*device, "side by side", |e| {
        for b in &buffers {
            e.dispatch(&incrementing(&increments, &b.whole())).unwrap();
        }
        e.barrier();
        e.barrier();
        for b in &buffers {
            e.dispatch(&incrementing(&increments, &b.whole())).unwrap();
        }
    });
    run(&*device, &commands).unwrap();
    for (i, b) in buffers.iter().enumerate() {
        assert_eq!(get(&*device, b), vec![i as u32 + 2; 1 + i * 3]);
    }
}

#[test]
fn every_axis_of_workgroups_runs() {
    let source = "
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(2, 2, 2)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    x[(id.z * 6u + id.y) * 10u + id.x] = id.x + 100u * id.y + 10000u * id.z;
}";
    let Some(device) = device() else { return };
    let stamps = pipeline(&*device, "stamp", source);
    let x = buffer(&*device, &[0; 240]);
    let dispatch = Dispatch {
        pipeline: stamps,
        bindings: vec![Binding::write_any(x.whole())],
        params: vec![],
        groups: [5, 3, 2],
    };
    run(&*device, &record(&*device, "stamp", |e| e.dispatch(&dispatch).unwrap())).unwrap();
    let expected: Vec<u32> = (0..240).map(|i| i % 10 + 100 * (i / 10 % 6) + 10000 * (i / 60)).collect();
    assert_eq!(get(&*device, &x), expected);
}

#[test]
fn kernels_have_what_they_may_use() {
    // 16-bit floats in storage and arithmetic, subgroup operations of each kind, packed dot products, workgroup memory.
    let source = "
enable f16;
@group(0) @binding(0) var<storage, read> h: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> q: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
var<workgroup> part: array<f32, 64>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) i: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
    let v = h[i] * vec4<f16>(2.0h);
    part[i] = f32(v.x + v.y + v.z + v.w);
    workgroupBarrier();
    let other = part[63u - i];
    let dots = dot4I8Packed(q[i], q[i]) + unpack4xI8(q[i]).x;
    let sum = subgroupAdd(1u) + subgroupMax(lane) + subgroupShuffleXor(lane, 1u);
    let agreed = select(0u, 1u, subgroupAll(sum > 0u) && subgroupBallot(true).x != 0u);
    out[i] = other + f32(dots) + f32(sum - size - (size - 1u) - (lane ^ 1u)) + f32(agreed) + subgroupBroadcastFirst(0.5);
}";
    let Some(device) = device() else { return };
    let all = pipeline(&*device, "all", source);
    // 16-bit floats by hand: 1.0 is 0x3c00.
    let h = buffer(&*device, &[0x3c00_3c00; 128]);
    let q = buffer(&*device, &[0x01fe_0103; 64]);
    let out = buffer(&*device, &[0; 64]);
    let bindings = vec![Binding::read(h.whole()), Binding::read(q.whole()), Binding::write_any(out.whole())];
    let dispatch = Dispatch { pipeline: all, bindings, params: vec![], groups: [1, 1, 1] };
    run(&*device, &record(&*device, "all", |e| e.dispatch(&dispatch).unwrap())).unwrap();
    // 4 · 2, then 9 + 1 + 4 + 1 of the dot product and 3 of its first byte, then one and a half.
    assert_eq!(get(&*device, &out), [(8.0_f32 + 15.0 + 3.0 + 1.5).to_bits(); 64]);
}

#[test]
fn a_required_subgroup_size_is_kept_or_refused() {
    let source = "
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) i: u32, @builtin(subgroup_size) size: u32) { out[i] = size; }";
    let Some(device) = device() else { return };
    let limits = device.info().limits.gpu.unwrap();
    for size in [limits.min_subgroup, limits.max_subgroup] {
        let code = Code::Gpu(shader("size", source, Some(size)));
        let sized = device.create_pipeline(&PipelineDesc { label: "size", code }).unwrap();
        let out = buffer(&*device, &[0; 64]);
        let bindings = vec![Binding::write_any(out.whole())];
        let dispatch = Dispatch { pipeline: sized, bindings, params: vec![], groups: [1, 1, 1] };
        run(&*device, &record(&*device, "size", |e| e.dispatch(&dispatch).unwrap())).unwrap();
        assert_eq!(get(&*device, &out), [size; 64]);
    }
    for size in [limits.max_subgroup * 2, limits.min_subgroup / 2, 3] {
        let code = Code::Gpu(shader("size", source, Some(size)));
        let refused = device.create_pipeline(&PipelineDesc { label: "size", code }).unwrap_err();
        let DeviceError::Pipeline { label, reason } = refused else { panic!("{refused}") };
        assert!(label == "size" && reason.contains(&format!("subgroups of {size}")), "{reason}");
    }
}

#[test]
fn empty_work_completes() {
    let Some(device) = device() else { return };
    let nothing = device.create_buffer(&BufferDesc::own("nothing", 0)).unwrap();
    assert_eq!(get(&*device, &nothing), []);
    let (increments, scales) =
        (pipeline(&*device, "increment", INCREMENT), pipeline(&*device, "scale", SCALE));
    let x = buffer(&*device, &[7; 4]);
    run(&*device, &record(&*device, "no command", |_| {})).unwrap();
    let commands = record(&*device, "no workgroup", |e| {
        e.dispatch(&incrementing(&increments, &nothing.whole())).unwrap();
        e.barrier();
        e.copy(&nothing.whole(), &nothing.whole()).unwrap();
        // A launch that reads nothing of its empty binding.
        let mut empty = scaling(&scales, &nothing.whole(), &x.whole(), 2);
        empty.params[..4].fill(0);
        e.dispatch(&empty).unwrap();
    });
    run(&*device, &commands).unwrap();
    assert_eq!(get(&*device, &x), [7; 4]);
}

#[test]
fn times_are_in_order_and_cover_the_work() {
    let Some(device) = device() else { return };
    let slows = pipeline(&*device, "slow", SLOW);
    let x = buffer(&*device, &[0]);
    let commands = record(&*device, "slow", |e| e.dispatch(&slow(&slows, &x.whole(), 100)).unwrap());
    let begin = std::time::Instant::now();
    let first = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
    let second = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
    let (first, second) = (first.wait(LONG).unwrap(), second.wait(LONG).unwrap());
    let wall = begin.elapsed().as_nanos() as u64;
    let own = |t: Timing| t.end_ns - t.start_ns;
    // Three operations in sequence, 50 000 times, take at least a nanosecond each on whatever GPU.
    assert!(own(first) > 50_000 && own(second) > 50_000, "{first:?} {second:?}");
    assert!(first.end_ns <= second.start_ns, "{first:?} {second:?}");
    assert!(second.end_ns - first.start_ns <= wall * 101 / 100 + 1_000_000, "{first:?} {second:?} {wall}");
}
