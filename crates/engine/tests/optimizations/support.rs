//! Engines, devices and requests of these tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bessemer_engine::{
    Engine, EngineError, EngineOptions, Feature, Master, Optimizations, Reply, ReplyStream, Request, Sampling,
};
use bessemer_hal::Device;
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};

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
    let options =
        EngineOptions { model: model.into(), optimizations, max_batch_tokens, ..EngineOptions::default() };
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
pub fn collect(mut stream: ReplyStream) -> Result<Vec<u32>, EngineError> {
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
