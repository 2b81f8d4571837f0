//! Devices and shorthands that these tests share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bessemer_hal::cpu::{CpuDevice, CpuOptions, Invocation};
use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_hal::*;
use bessemer_runtime::{TransferQueue, TransferQueueConfig};

/// Long enough that reaching it means a hang.
pub const LONG: Duration = Duration::from_secs(60);
pub const SHORT: Duration = Duration::from_millis(20);

/// A device that tells other limits than it has, remembers the queues of submissions, and does harm when told to.
#[derive(Debug)]
pub struct Odd {
    inner: Arc<dyn Device>,
    info: DeviceInfo,
    /// Of the writes to come: whether the first byte arrives damaged.
    pub damage: Mutex<VecDeque<bool>>,
    /// Of the reads to come: the same.
    pub damage_reads: Mutex<VecDeque<bool>>,
    pub lost: AtomicBool,
    pub slow_writes: AtomicBool,
    pub submissions: Mutex<Vec<QueueKind>>,
}

impl Odd {
    pub fn new(inner: Arc<dyn Device>, unified_memory: bool, mapped: bool) -> Arc<Self> {
        let mut info = inner.info().clone();
        (info.limits.unified_memory, info.limits.mapped) = (unified_memory, mapped);
        Arc::new(Self {
            inner,
            info,
            damage: Mutex::default(),
            damage_reads: Mutex::default(),
            lost: AtomicBool::new(false),
            slow_writes: AtomicBool::new(false),
            submissions: Mutex::default(),
        })
    }

    /// The CPU as if it had memory of its own.
    pub fn discrete() -> Arc<Self> {
        Self::new(cpu(), false, false)
    }
}

impl Device for Odd {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }
    fn create_heap(&self, desc: &HeapDesc<'_>) -> Result<Heap> {
        self.inner.create_heap(desc)
    }
    fn create_buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer> {
        self.inner.create_buffer(desc)
    }
    fn create_pipeline(&self, desc: &PipelineDesc) -> Result<Pipeline> {
        self.inner.create_pipeline(desc)
    }
    fn create_event(&self, initial: u64) -> Result<Event> {
        self.inner.create_event(initial)
    }
    fn create_encoder(&self, label: &str) -> Result<Box<dyn Encoder>> {
        self.inner.create_encoder(label)
    }
    fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission> {
        if self.lost.load(Ordering::SeqCst) {
            return Err(DeviceError::Lost("pulled out".into()));
        }
        self.submissions.lock().unwrap().push(queue);
        self.inner.submit(queue, submit)
    }
    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        if self.slow_writes.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(15));
        }
        let mut data = data.to_vec();
        if self.damage.lock().unwrap().pop_front() == Some(true) {
            data[0] ^= 0x10;
        }
        self.inner.write(slice, &data)
    }
    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        self.inner.read(slice, data)?;
        if self.damage_reads.lock().unwrap().pop_front() == Some(true) {
            data[0] ^= 0x10;
        }
        Ok(())
    }
}

pub fn cpu() -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { threads: Some(2), memory_budget: Some(1 << 30) })
}

/// A device whose memory the host does not share, with a kernel.
pub struct Rig {
    pub device: Arc<dyn Device>,
    scale: Pipeline,
    /// For its validation messages, which fail the test.
    vulkan: Option<Arc<VulkanDevice>>,
}

/// `out = in · factor + 1`.
fn scale(inv: &mut Invocation<'_>) {
    let factor: u32 = inv.params::<[u32; 2]>()[1];
    let input = inv.input::<u32>(1);
    let mut out = inv.output::<u32>(0);
    let from = out.first_col();
    for (col, x) in out.row_mut(0).iter_mut().enumerate() {
        *x = input[from + col].wrapping_mul(factor).wrapping_add(1);
    }
}

const SCALE: &str = "
struct Params { count: u32, factor: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.count) { y[id.x] = x[id.x] * p.factor + 1u; }
}";

impl Rig {
    pub fn cpu() -> Self {
        let device = Odd::discrete();
        let code = Code::Cpu(scale);
        let scale = device.create_pipeline(&PipelineDesc { label: "scale", code }).unwrap();
        Self { device, scale, vulkan: None }
    }

    fn vulkan() -> Option<Self> {
        let found = adapters().unwrap_or_default();
        let usable = || found.iter().filter(|a| a.unusable.is_none());
        let Some(chosen) = usable().find(|a| a.kind == AdapterKind::Software).or_else(|| usable().next())
        else {
            let must = cfg!(target_os = "linux") && std::env::var("CI").as_deref() == Ok("true");
            assert!(!must, "no Vulkan driver: {found:?}");
            eprintln!("skipped: no Vulkan driver");
            return None;
        };
        let options = VulkanOptions {
            adapter: Some(chosen.index),
            validation: std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none(),
            prefer_staging: true,
            ..VulkanOptions::default()
        };
        let device = VulkanDevice::new(&options).unwrap();
        assert!(!device.info().limits.mapped && !device.info().limits.unified_memory);
        let compiled = bessemer_wgsl::compile("scale", SCALE, bessemer_wgsl::Languages::Spirv).unwrap();
        let spirv: Vec<u8> = compiled.spirv.iter().flat_map(|w| w.to_le_bytes()).collect();
        let shader: &'static Shader = Box::leak(Box::new(Shader {
            name: "scale",
            spirv: spirv.leak(),
            msl: "",
            msl_entry: "",
            workgroup: compiled.workgroup,
            bindings: compiled.bindings,
            written: compiled.written,
            params: compiled.params,
            threadgroup: compiled.threadgroup.leak(),
            requires: Requires { cooperative_matrix: compiled.cooperative_matrix, subgroup_size: None },
        }));
        let code = Code::Gpu(shader);
        let scale = device.create_pipeline(&PipelineDesc { label: "scale", code }).unwrap();
        Some(Self { device: device.clone(), scale, vulkan: Some(device) })
    }

    /// The devices to test on.
    pub fn all() -> Vec<Self> {
        std::iter::once(Self::cpu()).chain(Self::vulkan()).collect()
    }

    pub fn buffer(&self, bytes: u64) -> Slice {
        buffer(&*self.device, bytes)
    }

    /// Commands that write `from · factor + 1` to `to`, both of `u32`.
    pub fn scaling(&self, from: &Slice, to: &Slice, factor: u32) -> Result<CommandBuffer> {
        let count = to.size() as usize / 4;
        let tiling = Tiling::by_cols(1, count, 64);
        let (written, groups) = match self.vulkan {
            Some(_) => (Binding::write_any(to.clone()), line(count.div_ceil(64))),
            None => (Binding::write(to.clone(), tiling), tiling.grid()),
        };
        let params = [count as u32, factor].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let bindings = vec![written, Binding::read(from.clone())];
        let mut encoder = self.device.create_encoder("scale")?;
        encoder.dispatch(&Dispatch { pipeline: self.scale.clone(), bindings, params, groups })?;
        encoder.finish()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(device) = self.vulkan.as_ref().filter(|_| !std::thread::panicking()) {
            assert_eq!(device.validation_messages(), Vec::<String>::new());
        }
    }
}

/// A queue with a small ring, whose waits are as long as they may be.
pub fn queue(device: &Arc<dyn Device>, change: impl FnOnce(&mut TransferQueueConfig)) -> TransferQueue {
    let mut config = TransferQueueConfig {
        staging_buffer_size_mb: 1,
        timeout_ms: 30_000,
        ..TransferQueueConfig::default()
    };
    change(&mut config);
    TransferQueue::new(device.clone(), config).unwrap()
}

pub fn buffer(device: &dyn Device, bytes: u64) -> Slice {
    let slice = device.create_buffer(&BufferDesc::own("test", bytes)).unwrap().whole();
    device.write(&slice, &vec![0; bytes as usize]).unwrap();
    slice
}

pub fn read(device: &dyn Device, slice: &Slice) -> Vec<u8> {
    let mut bytes = vec![0; slice.size() as usize];
    device.read(slice, &mut bytes).unwrap();
    bytes
}

/// Bytes that differ from place to place and from seed to seed.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}
