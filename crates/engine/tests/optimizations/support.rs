//! Engines, devices and requests of these tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bessemer_engine::{
    Engine, EngineError, EngineOptions, Feature, Master, Optimizations, Reply, ReplyStream, Request, Sampling,
};
use bessemer_hal::cpu::{CpuDevice, CpuOptions, Invocation};
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_hal::{
    Buffer, BufferDesc, Code, CommandBuffer, Device, DeviceInfo, Dispatch, Encoder, Event, Heap, HeapDesc,
    Pipeline, PipelineDesc, Place, QueueKind, Result, Slice, Submission, Submit,
};

/// Every setting of the master switch and the three features.
pub fn combinations() -> Vec<Optimizations> {
    (0..16_u32)
        .map(|bits| {
            let on: Vec<_> =
                (0..3).filter(|at| bits & (1 << at) != 0).map(|at| Feature::ALL[at as usize]).collect();
            let enabled = if bits & 8 == 0 { Master::Off } else { Master::On };
            Optimizations { enabled, ..Optimizations::only(&on) }
        })
        .collect()
}

pub fn cpu() -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { threads: Some(2), ..CpuOptions::default() })
}

/// Each submission to the compute queue takes this much longer.
pub fn slow(delay: Duration) -> FaultPlan {
    FaultPlan::new(1).with(Fault::SubmissionTimeout, 1.0).with_timeout(delay)
}

/// The CPU device, [`slow`].
pub fn slow_compute(delay: Duration) -> Arc<dyn Device> {
    let device = FaultDevice::new(cpu());
    device.arm(slow(delay));
    device
}

/// The CPU device with something added that no fault is like.
#[derive(Debug)]
pub struct Odd {
    inner: Arc<dyn Device>,
    /// Runs ahead of everything that is submitted to the compute queue.
    ahead: Option<CommandBuffer>,
    /// Whether the first bit of what the host writes to data of steps in heaps arrives turned.
    bad_heaps: bool,
}

const BAD: &str = "bad";

impl Odd {
    pub fn with_bad_heaps(inner: Arc<dyn Device>) -> Arc<dyn Device> {
        Arc::new(Self { inner, ahead: None, bad_heaps: true })
    }

    /// Each submission to the compute queue takes this much longer, and those behind it wait for it. (What
    /// [`slow_compute`] holds back it holds back from when it was submitted, several at the same time.)
    pub fn slow(inner: Arc<dyn Device>, delay: Duration) -> Arc<dyn Device> {
        fn pause(inv: &mut Invocation<'_>) {
            std::thread::sleep(Duration::from_millis(inv.params()));
        }
        let code = Code::Cpu(pause);
        let pipeline = inner.create_pipeline(&PipelineDesc { label: "pause", code }).unwrap();
        let params = (delay.as_millis() as u64).to_ne_bytes().to_vec();
        let mut encoder = inner.create_encoder("pause").unwrap();
        encoder.dispatch(&Dispatch { pipeline, bindings: vec![], params, groups: [1; 3] }).unwrap();
        let ahead = Some(encoder.finish().unwrap());
        Arc::new(Self { inner, ahead, bad_heaps: false })
    }
}

impl Device for Odd {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }
    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }
    fn create_heap(&self, desc: &HeapDesc<'_>) -> Result<Heap> {
        self.inner.create_heap(desc)
    }
    fn create_buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer> {
        // Weights are in heaps as well; those of the pool are for the data of steps.
        let bad = self.bad_heaps && matches!(desc.place, Place::Heap(..)) && desc.label == "step_data";
        self.inner.create_buffer(&BufferDesc { label: if bad { BAD } else { desc.label }, ..*desc })
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
        if let Some(ahead) = self.ahead.as_ref().filter(|_| queue == QueueKind::Compute) {
            self.inner.submit(queue, Submit::new(ahead))?;
        }
        self.inner.submit(queue, submit)
    }
    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()> {
        let mut data = data.to_vec();
        if slice.buffer().label() == BAD {
            data[0] ^= 1;
        }
        self.inner.write(slice, &data)
    }
    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()> {
        self.inner.read(slice, data)
    }
}

/// Runs `test` on a Vulkan device under the validation layer, which must find nothing: the one made of software, or the
/// adapter that `BESSEMER_TEST_ADAPTER` names; `BESSEMER_TEST_NO_VALIDATION` does without the layer.
pub fn on_vulkan(test: impl FnOnce(Arc<dyn Device>)) {
    let named = std::env::var("BESSEMER_TEST_ADAPTER").ok().map(|index| index.parse().unwrap());
    let software = || {
        let all = adapters().unwrap_or_default();
        all.into_iter().find(|adapter| adapter.kind == AdapterKind::Software).map(|adapter| adapter.index)
    };
    let Some(adapter) = named.or_else(software) else {
        let must = cfg!(target_os = "linux") && std::env::var("CI").as_deref() == Ok("true");
        assert!(!must, "no Vulkan driver");
        eprintln!("skipped: no Vulkan driver");
        return;
    };
    let validation = std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none();
    let options = VulkanOptions { adapter: Some(adapter), validation, ..VulkanOptions::default() };
    let device = VulkanDevice::new(&options).unwrap();
    test(device.clone());
    assert_eq!(device.validation_messages(), Vec::<String>::new());
}

/// The golden checkpoints whose names begin with one of these.
pub fn golden(begins: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut all: Vec<_> = ["models", "quantised"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|case| {
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            !name.contains("exl3") && begins.iter().any(|begin| name.starts_with(begin))
        })
        .collect();
    all.sort();
    assert!(all.len() >= begins.len(), "{all:?}");
    all
}

pub fn engine(device: &Arc<dyn Device>, model: &str, optimizations: Optimizations) -> Engine {
    // On a GPU more rows take other kernels, whose last bits differ: which rows share a step depends on time.
    let max_batch_tokens = if device.info().limits.gpu.is_some() { 16 } else { 48 };
    let options = EngineOptions {
        model: model.into(),
        optimizations,
        max_batch_tokens,
        // What one setting has computed is not to serve another.
        prefix_cache: false,
        ..EngineOptions::default()
    };
    Engine::load_on(device.clone(), options).unwrap()
}

/// A request of its own for every number: greedy ones, and ones that draw with penalties on their own history.
pub fn request(number: usize, vocab: usize, tokens: usize) -> Request {
    let prompt = (0..3 + number * 5 % 31).map(|at| ((number * 7919 + at * 104_729) % vocab) as u32).collect();
    let sampling = match number % 3 {
        0 => Sampling::greedy(),
        1 => Sampling { temperature: 0.8, top_p: 0.95, seed: Some(number as u64), ..Sampling::default() },
        _ => Sampling {
            temperature: 0.9,
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            presence_penalty: 0.1,
            seed: Some(number as u64),
            ..Sampling::default()
        },
    };
    Request { prompt, sampling, max_tokens: Some(tokens), ignore_end: true, ..Request::default() }
}

/// All tokens of a stream, or why it failed.
pub fn collect(mut stream: ReplyStream) -> std::result::Result<Vec<u32>, EngineError> {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next().expect("a stream ends with an end") {
            Reply::Token(token) => tokens.push(token.id),
            Reply::Finished { .. } => {
                assert!(stream.blocking_next().is_none(), "exactly one end");
                return Ok(tokens);
            }
            Reply::Failed(error) => {
                assert!(stream.blocking_next().is_none(), "exactly one end");
                return Err(error);
            }
        }
    }
}

/// What `batch` requests give that run together.
pub fn together(engine: &Engine, batch: usize, tokens: usize) -> Vec<Vec<u32>> {
    let vocab = engine.info().vocab;
    let streams: Vec<_> =
        (0..batch).map(|number| engine.submit(request(number, vocab, tokens)).unwrap()).collect();
    streams.into_iter().map(|stream| collect(stream).unwrap()).collect()
}
