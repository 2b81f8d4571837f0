//! What only shows on hardware that is not at hand, or when it breaks: a device that was lost, and drivers without push
//! descriptors, without timestamps, or with room for few allocations. What other drivers lack is taken from this one.

use std::sync::Arc;
use std::time::Duration;

use bessemer_wgsl::{Languages, compile};

use super::adapter::{self, Physical};
use super::instance::Instance;
use super::{VulkanDevice, VulkanOptions, adapters};
use crate::{
    Binding, Buffer, BufferDesc, Code, CommandBuffer, Device, DeviceError, Dispatch, Encoder, HeapDesc,
    PipelineDesc, QueueKind, Requires, Result, Shader, Slice, Submit,
};

const LONG: Duration = Duration::from_secs(60);

const ADD: &str = "
struct Params { count: u32, term: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.count) { y[id.x] = x[id.x] + p.term; }
}";

/// The device of the first usable adapter after `change`, or `None`, said so, where there is no driver.
fn open(change: impl FnOnce(&mut Physical)) -> Option<Arc<VulkanDevice>> {
    let found = adapters().unwrap_or_default();
    let Some(adapter) = found.iter().find(|a| a.unusable.is_none()) else {
        assert!(
            !cfg!(target_os = "linux") || std::env::var("CI").as_deref() != Ok("true"),
            "no Vulkan driver: {found:?}"
        );
        eprintln!("skipped: no Vulkan driver");
        return None;
    };
    let validation = std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none();
    let options = VulkanOptions { adapter: Some(adapter.index), validation, ..VulkanOptions::default() };
    let instance = Instance::new(options.validation).unwrap();
    let mut physical = adapter::choose(&instance, options.adapter).unwrap();
    change(&mut physical);
    Some(VulkanDevice::with(instance, physical, &options).unwrap())
}

fn shader() -> &'static Shader {
    let compiled = compile("add", ADD, Languages::Spirv).unwrap();
    let spirv: Vec<u8> = compiled.spirv.iter().flat_map(|w| w.to_le_bytes()).collect();
    Box::leak(Box::new(Shader {
        name: "add",
        spirv: spirv.leak(),
        msl: "",
        msl_entry: "",
        workgroup: compiled.workgroup,
        bindings: compiled.bindings,
        written: compiled.written,
        params: compiled.params,
        threadgroup: &[],
        requires: Requires::default(),
    }))
}

fn buffer(device: &VulkanDevice, values: &[u32]) -> Buffer {
    let buffer = device.create_buffer(&BufferDesc::own("values", values.len() as u64 * 4)).unwrap();
    device.write(&buffer.whole(), bytemuck::cast_slice(values)).unwrap();
    buffer
}

fn record(device: &VulkanDevice, body: impl FnOnce(&mut dyn Encoder)) -> CommandBuffer {
    let mut encoder = device.create_encoder("step").unwrap();
    body(&mut *encoder);
    encoder.finish().unwrap()
}

/// Adds 1, then 2, and so on, from buffer to buffer and back: more launches than a descriptor pool has sets.
fn sums_are_right(device: &VulkanDevice) {
    const LAUNCHES: u32 = 600;
    let pipeline = device.create_pipeline(&PipelineDesc { label: "add", code: Code::Gpu(shader()) }).unwrap();
    let (x, y) = (buffer(device, &[0; 100]), buffer(device, &[0; 100]));
    let add = |from: Slice, to: Slice, term: u32| Dispatch {
        pipeline: pipeline.clone(),
        bindings: vec![Binding::write_any(to), Binding::read(from)],
        params: bytemuck::cast_slice(&[100, term]).to_vec(),
        groups: [2, 1, 1],
    };
    let commands = record(device, |e| {
        for term in 1..=LAUNCHES {
            let (from, to) = if term % 2 == 1 { (&x, &y) } else { (&y, &x) };
            e.dispatch(&add(from.whole(), to.whole(), term)).unwrap();
            e.barrier();
        }
    });
    let mut end = 0;
    for round in 1..=2 {
        let timing = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap().wait(LONG).unwrap();
        assert!(end <= timing.start_ns && timing.start_ns < timing.end_ns, "{timing:?}");
        end = timing.end_ns;
        let mut values = [0_u32; 100];
        device.read(&x.whole(), bytemuck::cast_slice_mut(&mut values)).unwrap();
        let sum = round * LAUNCHES * (LAUNCHES + 1) / 2;
        assert_eq!(values, [sum; 100]);
    }
    let mut messages = device.validation_messages();
    // What a layer says that is older than the GPU's driver.
    let of_age = ["unknown VkStructureType", "is not supported by this layer"];
    messages.retain(|m| !of_age.iter().any(|part| m.contains(part)));
    assert_eq!(messages, Vec::<String>::new());
}

#[test]
fn descriptors_are_bound_in_sets_where_they_cannot_be_pushed() {
    let push = ash::khr::push_descriptor::NAME;
    let Some(device) = open(|p| p.extensions.retain(|e| e.extension_name_as_c_str() != Ok(push))) else {
        return;
    };
    assert!(device.core.push.is_none());
    sums_are_right(&device);
}

#[test]
fn times_are_the_hosts_where_a_queue_has_none() {
    let Some(device) = open(|p| p.families.iter_mut().for_each(|f| f.timestamp_valid_bits = 0)) else {
        return;
    };
    assert!(device.core.clock.is_none());
    sums_are_right(&device);
}

#[test]
fn allocations_are_no_more_than_the_driver_takes() {
    let Some(device) = open(|p| p.limits.max_memory_allocation_count = 2) else { return };
    let own = |label| device.create_buffer(&BufferDesc::own(label, 64));
    let (first, _second) = (own("first").unwrap(), own("second").unwrap());
    let refused = device.create_heap(&HeapDesc { label: "third", size: 64 }).unwrap_err();
    let DeviceError::OutOfMemory { what, .. } = refused else { panic!("{refused}") };
    assert!(what.contains("'third'") && what.contains("2 allocations"), "{what}");
    drop(first);
    own("third").unwrap();
}

#[test]
fn everybody_learns_that_the_device_is_lost() {
    let Some(device) = open(|_| ()) else { return };
    let (x, y) = (buffer(&device, &[1; 64]), buffer(&device, &[2; 64]));
    let commands = record(&device, |e| e.copy(&x.whole(), &y.whole()).unwrap());
    let (never, done) = (device.create_event(0).unwrap(), device.create_event(3).unwrap());
    let submit =
        Submit { wait: &[(never.clone(), 1)], signal: &[(done.clone(), 4)], ..Submit::new(&commands) };
    let held: Vec<_> =
        [QueueKind::Compute, QueueKind::Transfer].map(|q| device.submit(q, submit).unwrap()).into();
    let lost = DeviceError::Lost("as ordered by the test".into());
    std::thread::scope(|scope| {
        let waits: Vec<_> = held.iter().map(|s| scope.spawn(|| s.wait(LONG).map(drop))).collect();
        let events = [scope.spawn(|| done.wait(4, LONG)), scope.spawn(|| never.wait(1, LONG))];
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(device.core.lose("as ordered by the test"), lost);
        for wait in waits.into_iter().chain(events) {
            assert_eq!(wait.join().unwrap(), Err(lost.clone()));
        }
    });
    // Later causes do not replace the first.
    assert_eq!(device.core.lose("otherwise"), lost);
    let told = |result: Result<()>| assert_eq!(result, Err(lost.clone()));
    told(device.submit(QueueKind::Compute, Submit::new(&commands)).map(drop));
    told(device.create_buffer(&BufferDesc::own("late", 4)).map(drop));
    told(device.create_heap(&HeapDesc { label: "late", size: 4 }).map(drop));
    told(device.create_pipeline(&PipelineDesc { label: "late", code: Code::Gpu(shader()) }).map(drop));
    told(device.create_encoder("late").map(drop));
    told(device.create_event(0).map(drop));
    told(device.read(&x.whole(), &mut [0; 256]));
    told(device.write(&x.whole(), &[0; 256]));
    told(done.value().map(drop));
    told(done.wait(4, LONG));
    // What was reached stays so.
    assert_eq!(done.wait(3, LONG), Ok(()));
    never.signal(1);
    assert_eq!(held[0].poll(), Some(Err(lost.clone())));
}
