//! Kernels and shorthands that these tests share.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_hal::*;
use bessemer_wgsl::{Languages, compile};

/// Long enough that reaching it means a hang.
pub const LONG: Duration = Duration::from_secs(60);
pub const SHORT: Duration = Duration::from_millis(20);

/// `x[i] += 1` for the first `count`.
pub const INCREMENT: &str = "
struct Params { count: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.count) { x[id.x] = x[id.x] + 1u; }
}";

/// `out[i] = in[i] · factor + 1` for the first `count`.
pub const SCALE: &str = "
struct Params { count: u32, factor: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.count) { y[id.x] = x[id.x] * p.factor + 1u; }
}";

/// Multiplies for a while: 50 000 times in each thread of each workgroup. (Software ends all loops after 65 536 turns.)
pub const SLOW: &str = "
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = id.x;
    for (var i = 0u; i < 50000u; i = i + 1u) { sum = sum * 1664525u + 1013904223u + (sum >> 3u); }
    if (id.x == 0u || sum == 1u) { x[0] = sum; }
}";

/// A device whose validation messages fail the test.
pub struct Checked {
    device: Arc<VulkanDevice>,
}

impl Deref for Checked {
    type Target = dyn Device;

    fn deref(&self) -> &(dyn Device + 'static) {
        &*self.device
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let mut messages = self.device.validation_messages();
            // What a layer says that is older than the GPU's driver.
            let of_age = ["unknown VkStructureType", "is not supported by this layer"];
            messages.retain(|m| !of_age.iter().any(|part| m.contains(part)));
            assert_eq!(messages, Vec::<String>::new());
        }
    }
}

/// The adapter to test on, or `None`, said so, where there is no driver.
pub fn adapter() -> Option<usize> {
    let found = adapters().unwrap_or_default();
    let usable = || found.iter().filter(|a| a.unusable.is_none());
    let chosen = usable().find(|a| a.kind == AdapterKind::Software).or_else(|| usable().next());
    if chosen.is_none() {
        assert!(
            !cfg!(target_os = "linux") || std::env::var("CI").as_deref() != Ok("true"),
            "no Vulkan driver: {found:?}"
        );
        eprintln!("skipped: no Vulkan driver");
    }
    chosen.map(|a| a.index)
}

/// Options for the adapter to test on.
pub fn options() -> Option<VulkanOptions> {
    let validation = std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none();
    Some(VulkanOptions { adapter: Some(adapter()?), validation, ..VulkanOptions::default() })
}

pub fn open_with(options: &VulkanOptions) -> Checked {
    Checked { device: VulkanDevice::new(options).unwrap() }
}

/// The device to test, or `None`, said so, where there is no driver.
pub fn device() -> Option<Checked> {
    options().map(|options| open_with(&options))
}

pub fn shader(name: &'static str, source: &str, subgroup_size: Option<u32>) -> &'static Shader {
    let compiled = compile(name, source, Languages::Spirv).unwrap();
    let spirv: Vec<u8> = compiled.spirv.iter().flat_map(|w| w.to_le_bytes()).collect();
    Box::leak(Box::new(Shader {
        name,
        spirv: spirv.leak(),
        msl: "",
        msl_entry: "",
        workgroup: compiled.workgroup,
        bindings: compiled.bindings,
        written: compiled.written,
        params: compiled.params,
        threadgroup: compiled.threadgroup.leak(),
        requires: Requires { cooperative_matrix: compiled.cooperative_matrix, subgroup_size },
    }))
}

pub fn pipeline(device: &dyn Device, name: &'static str, source: &str) -> Pipeline {
    let code = Code::Gpu(shader(name, source, None));
    device.create_pipeline(&PipelineDesc { label: name, code }).unwrap()
}

/// A buffer of `u32`.
pub fn buffer(device: &dyn Device, values: &[u32]) -> Buffer {
    let buffer = device.create_buffer(&BufferDesc::own("values", values.len() as u64 * 4)).unwrap();
    put(device, &buffer, values);
    buffer
}

pub fn put(device: &dyn Device, buffer: &Buffer, values: &[u32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    device.write(&buffer.whole(), &bytes).unwrap();
}

pub fn get(device: &dyn Device, buffer: &Buffer) -> Vec<u32> {
    let mut bytes = vec![0; buffer.size() as usize];
    device.read(&buffer.whole(), &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_ne_bytes(b.try_into().unwrap())).collect()
}

fn groups(slice: &Slice) -> [u32; 3] {
    line((slice.size() as usize / 4).div_ceil(64))
}

/// A launch of [`INCREMENT`].
pub fn incrementing(pipeline: &Pipeline, x: &Slice) -> Dispatch {
    Dispatch {
        pipeline: pipeline.clone(),
        bindings: vec![Binding::write_any(x.clone())],
        params: (x.size() as u32 / 4).to_ne_bytes().to_vec(),
        groups: groups(x),
    }
}

/// A launch of [`SCALE`].
pub fn scaling(pipeline: &Pipeline, from: &Slice, to: &Slice, factor: u32) -> Dispatch {
    Dispatch {
        pipeline: pipeline.clone(),
        bindings: vec![Binding::write_any(to.clone()), Binding::read(from.clone())],
        params: [to.size() as u32 / 4, factor].iter().flat_map(|v| v.to_ne_bytes()).collect(),
        groups: groups(to),
    }
}

/// A launch of [`SLOW`].
pub fn slow(pipeline: &Pipeline, x: &Slice, groups: u32) -> Dispatch {
    let bindings = vec![Binding::write_any(x.clone())];
    Dispatch { pipeline: pipeline.clone(), bindings, params: vec![], groups: [groups, 1, 1] }
}

pub fn record(device: &dyn Device, label: &str, body: impl FnOnce(&mut dyn Encoder)) -> CommandBuffer {
    let mut encoder = device.create_encoder(label).unwrap();
    body(&mut *encoder);
    encoder.finish().unwrap()
}

pub fn run(device: &dyn Device, commands: &CommandBuffer) -> Result<Timing> {
    device.submit(QueueKind::Compute, Submit::new(commands)).unwrap().wait(LONG)
}

/// The text of a [`DeviceError::Usage`].
pub fn usage<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(DeviceError::Usage(rule)) => rule,
        other => panic!("expected wrong use, got {other:?}"),
    }
}
