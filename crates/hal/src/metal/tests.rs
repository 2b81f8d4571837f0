//! The device itself, on a Mac. Where there is no GPU that kernels run on, each test says so and ends.

use std::sync::Arc;
use std::time::Duration;

use bessemer_wgsl::{Languages, compile};

use super::{HostMemory, MetalDevice, MetalOptions};
use crate::{
    Binding, Buffer, BufferDesc, Code, CommandBuffer, Device, DeviceError, Dispatch, Encoder, HeapDesc,
    Pipeline, PipelineDesc, Place, QueueKind, Requires, Shader, Slice, Submit, line,
};

/// Long enough that reaching it means a hang.
const LONG: Duration = Duration::from_secs(60);

/// `y[i] = x[i] · factor + 1` for the first `count`.
const SCALE: &str = "
struct Params { count: u32, factor: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.count) { y[id.x] = x[id.x] * p.factor + 1u; }
}";

/// Sums of 64 values, through two workgroup variables, and the length of a buffer.
const SUMS: &str = "
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
var<workgroup> pairs: array<u32, 32>;
var<workgroup> total: atomic<u32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (local == 0u) { atomicStore(&total, 0u); }
    let first = group.x * 64u + local * 2u;
    if (local < 32u) { pairs[local] = x[first] + x[first + 1u]; }
    workgroupBarrier();
    if (local < 32u) { atomicAdd(&total, pairs[local]); }
    workgroupBarrier();
    if (local == 0u) { y[group.x] = atomicLoad(&total) + arrayLength(&x) - arrayLength(&x); }
}";

fn open(options: &MetalOptions) -> Option<Arc<MetalDevice>> {
    match MetalDevice::new(options) {
        Ok(device) => Some(device),
        Err(DeviceError::Unavailable(reason)) => {
            eprintln!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Each way to hold memory.
fn devices() -> Vec<Arc<MetalDevice>> {
    [false, true]
        .into_iter()
        .filter_map(|private_memory| open(&MetalOptions { private_memory, ..MetalOptions::default() }))
        .collect()
}

fn shader(name: &'static str, source: &str) -> &'static Shader {
    let compiled = compile(name, source, Languages::Msl).unwrap();
    Box::leak(Box::new(Shader {
        name,
        spirv: &[],
        msl: compiled.msl.leak(),
        msl_entry: compiled.msl_entry.leak(),
        workgroup: compiled.workgroup,
        bindings: compiled.bindings,
        written: compiled.written,
        params: compiled.params,
        threadgroup: compiled.threadgroup.leak(),
        requires: Requires { cooperative_matrix: compiled.cooperative_matrix, subgroup_size: None },
    }))
}

fn pipeline(device: &dyn Device, name: &'static str, source: &str) -> Pipeline {
    device.create_pipeline(&PipelineDesc { label: name, code: Code::Gpu(shader(name, source)) }).unwrap()
}

fn scaling(pipeline: &Pipeline, from: &Slice, to: &Slice, factor: u32) -> Dispatch {
    let count = (from.size() / 4) as u32;
    Dispatch {
        pipeline: pipeline.clone(),
        bindings: vec![Binding::write_any(to.clone()), Binding::read(from.clone())],
        params: [count, factor].iter().flat_map(|v| v.to_ne_bytes()).collect(),
        groups: line((count as usize).div_ceil(64)),
    }
}

fn buffer(device: &dyn Device, values: &[u32]) -> Buffer {
    let buffer = device.create_buffer(&BufferDesc::own("values", values.len() as u64 * 4)).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    device.write(&buffer.whole(), &bytes).unwrap();
    buffer
}

fn get(device: &dyn Device, slice: &Slice) -> Vec<u32> {
    let mut bytes = vec![0; slice.size() as usize];
    device.read(slice, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_ne_bytes(b.try_into().unwrap())).collect()
}

fn record(device: &dyn Device, commands: impl FnOnce(&mut dyn Encoder)) -> CommandBuffer {
    let mut encoder = device.create_encoder("test").unwrap();
    commands(&mut *encoder);
    encoder.finish().unwrap()
}

fn run(device: &dyn Device, queue: QueueKind, commands: &CommandBuffer) {
    device.submit(queue, Submit::new(commands)).unwrap().wait(LONG).unwrap();
}

#[test]
fn launches_copies_and_barriers_keep_their_order_and_run_again() {
    for device in devices() {
        let device: &dyn Device = &*device;
        let scale = pipeline(device, "scale", SCALE);
        let values: Vec<u32> = (0..1000).collect();
        let [x, y, z] = [&values[..], &[0; 1000], &[0; 1000]].map(|v| buffer(device, v));
        let commands = record(device, |e| {
            e.dispatch(&scaling(&scale, &x.whole(), &y.whole(), 3)).unwrap();
            e.barrier();
            e.copy(&y.whole(), &z.whole()).unwrap();
            e.barrier();
            e.dispatch(&scaling(&scale, &z.whole(), &y.whole(), 2)).unwrap();
            e.barrier();
            // Of no alignment: made by a launch.
            e.copy(&y.slice(1, 7).unwrap(), &x.slice(2, 7).unwrap()).unwrap();
        });
        run(device, QueueKind::Compute, &commands);
        let expected: Vec<u32> = values.iter().map(|v| (v * 3 + 1) * 2 + 1).collect();
        assert_eq!(get(device, &y.whole()), expected);
        let bytes = |v: &[u32]| v.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        let mut copied = bytes(&values);
        copied[2..9].copy_from_slice(&bytes(&expected)[1..8]);
        assert_eq!(bytes(&get(device, &x.whole())), copied);
        run(device, QueueKind::Compute, &commands);
    }
}

#[test]
fn a_long_chain_is_cut_into_parts_that_keep_their_order() {
    let options = MetalOptions { commands_per_buffer: 3, ..MetalOptions::default() };
    let Some(device) = open(&options) else { return };
    let scale = pipeline(&*device, "scale", SCALE);
    let (x, y) = (buffer(&*device, &[0; 64]), buffer(&*device, &[0; 64]));
    let commands = record(&*device, |e| {
        for _ in 0..50 {
            e.dispatch(&scaling(&scale, &x.whole(), &y.whole(), 1)).unwrap();
            e.barrier();
            e.dispatch(&scaling(&scale, &y.whole(), &x.whole(), 1)).unwrap();
            e.barrier();
        }
    });
    for _ in 0..3 {
        run(&*device, QueueKind::Compute, &commands);
    }
    assert_eq!(get(&*device, &x.whole()), [300; 64]);
}

#[test]
fn workgroup_variables_and_lengths_reach_the_kernel() {
    for device in devices() {
        let sums = pipeline(&*device, "sums", SUMS);
        let (x, y) = (buffer(&*device, &(0..128).collect::<Vec<_>>()), buffer(&*device, &[0; 2]));
        let commands = record(&*device, |e| {
            let bindings = vec![Binding::write_any(y.whole()), Binding::read(x.whole())];
            e.dispatch(&Dispatch { pipeline: sums.clone(), bindings, params: vec![], groups: [2, 1, 1] })
                .unwrap();
        });
        run(&*device, QueueKind::Compute, &commands);
        assert_eq!(get(&*device, &y.whole()), [2016, 6112]);
    }
}

#[test]
fn queues_wait_for_each_other_by_events() {
    for device in devices() {
        let scale = pipeline(&*device, "scale", SCALE);
        let event = device.create_event(0).unwrap();
        let [a, b, c, d] = [[5_u32; 256], [0; 256], [0; 256], [0; 256]].map(|v| buffer(&*device, &v));
        let up = record(&*device, |e| e.copy(&a.whole(), &b.whole()).unwrap());
        let step = record(&*device, |e| e.dispatch(&scaling(&scale, &b.whole(), &c.whole(), 2)).unwrap());
        let down = record(&*device, |e| e.copy(&c.whole(), &d.whole()).unwrap());
        let go = |queue, commands, wait, signal| {
            let (wait, signal) = ([(event.clone(), wait)], [(event.clone(), signal)]);
            device.submit(queue, Submit { commands, wait: &wait, signal: &signal }).unwrap()
        };
        // What waits comes first, and all of it is held until the host says so.
        let scaled = go(QueueKind::Compute, &step, 2, 3);
        let uploaded = go(QueueKind::Transfer, &up, 1, 2);
        let downloaded = go(QueueKind::Transfer, &down, 3, 4);
        assert!([&scaled, &uploaded, &downloaded].iter().all(|submission| submission.poll().is_none()));
        event.signal(1);
        event.wait(4, LONG).unwrap();
        let [up, scaled, down] =
            [uploaded, scaled, downloaded].map(|submission| submission.wait(LONG).unwrap());
        assert!(up.start_ns <= up.end_ns && up.end_ns <= scaled.end_ns && scaled.end_ns <= down.end_ns);
        assert_eq!(get(&*device, &d.whole()), [11; 256]);
    }
}

#[test]
fn staging_is_seen_by_both_however_memory_is_held() {
    for device in devices() {
        let before = device.allocated();
        let staged = device.create_buffer(&BufferDesc::staging("staged", 1024)).unwrap();
        let counted = device.allocated() - before;
        assert_eq!(counted, if device.info().limits.unified_memory { 1024 } else { 0 });
        let x = buffer(&*device, &[0; 256]);
        device.write(&staged.whole(), &[5; 1024]).unwrap();
        let up = record(&*device, |e| e.copy(&staged.whole(), &x.whole()).unwrap());
        run(&*device, QueueKind::Transfer, &up);
        assert_eq!(get(&*device, &x.whole()), [0x0505_0505; 256]);
        device.write(&x.whole(), &[6; 1024]).unwrap();
        let down = record(&*device, |e| e.copy(&x.whole(), &staged.whole()).unwrap());
        run(&*device, QueueKind::Transfer, &down);
        assert_eq!(get(&*device, &staged.whole()), [0x0606_0606; 256]);
    }
}

#[test]
fn placed_buffers_share_the_memory_of_their_heap() {
    for device in devices() {
        let align = device.info().limits.alignment;
        let heap = device.create_heap(&HeapDesc { label: "heap", size: 2 * align + 100 }).unwrap();
        let place = |label, offset, size| {
            device.create_buffer(&BufferDesc { label, size, place: Place::Heap(&heap, offset) })
        };
        let (all, end) = (place("all", 0, 2 * align + 100).unwrap(), place("end", 2 * align, 100).unwrap());
        device.write(&end.whole(), &[7; 100]).unwrap();
        let mut bytes = [0; 100];
        device.read(&all.slice(2 * align, 100).unwrap(), &mut bytes).unwrap();
        assert_eq!(bytes, [7; 100]);
        assert!(matches!(place("off", 1, 8), Err(DeviceError::Usage(_))));
        assert!(matches!(place("beyond", 2 * align, 101), Err(DeviceError::Usage(_))));
        let before = device.allocated();
        drop((heap, all, end));
        assert_eq!(device.allocated(), before - (2 * align + 100));
    }
}

/// Bytes that begin at a page of 16 KiB.
struct Pages {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl Pages {
    fn new(values: &[u32]) -> Self {
        let page = 16 << 10;
        let size = values.len() * 4;
        let mut bytes = vec![0; size.next_multiple_of(page) + page];
        let start = bytes.as_ptr().align_offset(page);
        for (at, value) in values.iter().enumerate() {
            bytes[start + at * 4..][..4].copy_from_slice(&value.to_ne_bytes());
        }
        Self { bytes, start, size }
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.size]
    }
}

#[test]
fn memory_of_the_host_is_read_where_it_lies() {
    for device in devices() {
        let values: Vec<u32> = (0..10_000).collect();
        let memory = Arc::new(Pages::new(&values));
        let before = device.allocated();
        let held: Arc<HostMemory> = memory.clone();
        let x = device.wrap("weights", held).unwrap();
        assert_eq!((x.size(), device.allocated()), (40_000, before));
        assert_eq!(get(&*device, &x.whole()), values);
        let scale = pipeline(&*device, "scale", SCALE);
        let y = buffer(&*device, &vec![0; 10_000]);
        let commands = record(&*device, |e| {
            e.dispatch(&scaling(&scale, &x.whole(), &y.whole(), 2)).unwrap();
            e.barrier();
            e.dispatch(&scaling(&scale, &y.whole(), &x.whole(), 2)).unwrap_err();
            e.copy(&y.whole(), &x.whole()).unwrap_err();
        });
        run(&*device, QueueKind::Compute, &commands);
        assert_eq!(get(&*device, &y.whole()), values.iter().map(|v| v * 2 + 1).collect::<Vec<_>>());
        assert!(matches!(device.write(&x.slice(0, 4).unwrap(), &[0; 4]), Err(DeviceError::Usage(_))));
        let mut crooked = Pages::new(&values);
        (crooked.start, crooked.size) = (crooked.start + 4, crooked.size - 4);
        assert!(matches!(device.wrap("crooked", Arc::new(crooked)), Err(DeviceError::Usage(_))));
        drop((commands, x));
        // The device's hold on the memory ends with the buffer, perhaps a moment later.
        let begin = std::time::Instant::now();
        while Arc::strong_count(&memory) > 1 {
            assert!(begin.elapsed() < LONG, "the memory is still held");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn compiled_pipelines_are_kept_and_a_broken_file_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipelines");
    std::fs::write(&path, b"not an archive").unwrap();
    let options = MetalOptions { pipeline_cache: Some(path.clone()), ..MetalOptions::default() };
    for _ in 0..2 {
        let Some(device) = open(&options) else { return };
        pipeline(&*device, "scale", SCALE);
        device.save_pipeline_cache();
        assert_ne!(std::fs::read(&path).unwrap(), b"not an archive");
    }
}

#[test]
fn a_kernel_that_does_not_compile_is_an_error_with_its_name() {
    let Some(device) = open(&MetalOptions::default()) else { return };
    let good = shader("scale", SCALE);
    let with = |name, msl, msl_entry| {
        let broken = Shader { name, msl, msl_entry, threadgroup: &[], ..*good };
        let code = Code::Gpu(Box::leak(Box::new(broken)));
        device.create_pipeline(&PipelineDesc { label: name, code }).unwrap_err().to_string()
    };
    let rule = with("broken", "kernel void f( {", "f");
    assert!(rule.contains("'broken'") && rule.contains("error"), "{rule}");
    let rule = with("nameless", good.msl, "elsewhere");
    assert!(rule.contains("'elsewhere'"), "{rule}");
}

#[test]
fn a_dropped_device_fails_what_it_holds() {
    let Some(device) = open(&MetalOptions::default()) else { return };
    let event = device.create_event(0).unwrap();
    let (a, b) = (buffer(&*device, &[1; 4]), buffer(&*device, &[0; 4]));
    let commands = record(&*device, |e| e.copy(&a.whole(), &b.whole()).unwrap());
    let wait = [(event.clone(), 1)];
    let held = device.submit(QueueKind::Transfer, Submit { wait: &wait, ..Submit::new(&commands) }).unwrap();
    drop(device);
    assert!(matches!(held.wait(LONG), Err(DeviceError::Lost(_))));
}
