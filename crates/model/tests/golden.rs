//! Every golden checkpoint of the known architectures against its oracle: logits and greedy tokens.
//!
//! The float32 path is held to the float32 tolerance of each case; the fast path to a mean KL divergence.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::Device;
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_model::{ActivationMode, BatchInput, KvCache, KvPrecision, Model, ModelOptions};
use bessemer_runtime::{Optimizations, Profile, Runtime, StepData};
use bessemer_weights::{ModelFiles, OpenOptions};
use safetensors::SafeTensors;
use serde_json::Value;

const BLOCK: usize = 16;
const EXACT: ModelOptions = ModelOptions { activations: ActivationMode::F32, kv: KvPrecision::F32 };
const FAST: ModelOptions = ModelOptions { activations: ActivationMode::Auto, kv: KvPrecision::Auto };

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn cases() -> Vec<PathBuf> {
    let known = ["llama", "mistral", "qwen2", "qwen3", "qwen3_moe"];
    let mut cases: Vec<PathBuf> = known.iter().map(|name| golden().join("models").join(name)).collect();
    let mut quantised: Vec<PathBuf> =
        std::fs::read_dir(golden().join("quantised")).unwrap().map(|entry| entry.unwrap().path()).collect();
    quantised.sort();
    cases.extend(quantised.into_iter().filter(|p| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        !name.contains("exl3") && known.iter().any(|k| name.starts_with(&format!("{k}_")))
    }));
    assert!(cases.len() >= 20, "{} golden cases found", cases.len());
    cases
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A model with one sequence's worth of cache.
struct Session {
    runtime: Arc<Runtime>,
    model: Model,
    kv: KvCache,
}

impl Session {
    fn open(runtime: &Arc<Runtime>, case: &Path, options: &ModelOptions) -> Self {
        let files = ModelFiles::open(case.join("model").to_str().unwrap(), &OpenOptions::default()).unwrap();
        let model = Model::load(&files, runtime, options).unwrap();
        let kv = model.create_kv_cache(16, BLOCK).unwrap();
        Self { runtime: runtime.clone(), model, kv }
    }

    /// Runs `ids` from position `start`; logits of every row.
    fn forward(&self, ids: &[u32], start: usize) -> Vec<Vec<f32>> {
        let positions: Vec<u32> = (start..start + ids.len()).map(|p| p as u32).collect();
        let blocks = (start + ids.len()).div_ceil(BLOCK);
        // Blocks in reverse order, so that a kernel that takes positions for cache rows is caught.
        let table: Vec<u32> = (0..blocks).map(|b| (self.kv.blocks() - 1 - b) as u32).collect();
        let input = BatchInput {
            input_ids: ids.to_vec(),
            slots: positions
                .iter()
                .map(|p| table[*p as usize / BLOCK] * BLOCK as u32 + p % BLOCK as u32)
                .collect(),
            positions,
            row_seq: vec![0; ids.len()],
            block_tables: table,
            seqs: 1,
            blocks_per_seq: blocks,
            logit_rows: (0..ids.len() as u32).collect(),
        };
        let mut recorder = self.runtime.recorder("test").unwrap();
        let mut data = StepData::default();
        let layout = input.lay_out(&mut data).unwrap();
        let batch = layout.on(&recorder.place(&data).unwrap()).unwrap();
        let logits = self.model.encode(&batch, &self.kv, &mut recorder).unwrap();
        let step = recorder.submit().unwrap();
        self.runtime.wait(&step, Duration::from_secs(60), true).unwrap();
        let logits = step.read::<f32>(&logits).unwrap();
        logits.chunks(self.model.config().vocab_size).map(<[f32]>::to_vec).collect()
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = i;
        }
    }
    best as u32
}

struct Prompt {
    name: String,
    ids: Vec<u32>,
    first: usize,
    oracle: Vec<Vec<f32>>,
    greedy: Vec<u32>,
}

fn prompts(case: &Path, vocab: usize) -> Vec<Prompt> {
    let bytes = std::fs::read(case.join("logits.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let greedy = json(&case.join("greedy.json"));
    let ids =
        |v: &Value| v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect::<Vec<_>>();
    json(&case.join("tokens.json"))["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let name = p["name"].as_str().unwrap().to_owned();
            let tensor = tensors.tensor(p["logits_key"].as_str().unwrap()).unwrap();
            let values: Vec<f32> =
                tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            let tokens = ids(&greedy[&name]["tokens"]);
            Prompt {
                name,
                ids: ids(&p["ids"]),
                first: p["first_position"].as_u64().unwrap() as usize,
                oracle: values.chunks(vocab).map(<[f32]>::to_vec).collect(),
                greedy: tokens,
            }
        })
        .collect()
}

fn kl(oracle: &[f32], ours: &[f32]) -> f64 {
    let log_softmax = |x: &[f32]| {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let sum: f64 = x.iter().map(|v| (f64::from(*v) - max).exp()).sum();
        x.iter().map(|v| f64::from(*v) - max - sum.ln()).collect::<Vec<_>>()
    };
    let (p, q) = (log_softmax(oracle), log_softmax(ours));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn cpu() -> Arc<Runtime> {
    Runtime::new(CpuDevice::new(&CpuOptions::default())).unwrap()
}

/// Runs `test` on a Vulkan device under the validation layer, which must find nothing. The device made of software, which
/// runs everywhere, unless `BESSEMER_TEST_ADAPTER` names another; `BESSEMER_TEST_NO_VALIDATION` does without the layer.
fn on_vulkan(test: fn(&Arc<Runtime>)) {
    let named = std::env::var("BESSEMER_TEST_ADAPTER").ok().map(|index| index.parse().unwrap());
    let software = |all: Vec<_>| {
        all.into_iter()
            .find(|a: &bessemer_hal::vulkan::Adapter| a.kind == AdapterKind::Software)
            .map(|a| a.index)
    };
    let Some(adapter) = named.or_else(|| software(adapters().unwrap_or_default())) else {
        assert!(
            !cfg!(target_os = "linux") || std::env::var("CI").as_deref() != Ok("true"),
            "no Vulkan driver"
        );
        eprintln!("skipped: no Vulkan driver");
        return;
    };
    let validation = std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none();
    let options = VulkanOptions { adapter: Some(adapter), validation, ..VulkanOptions::default() };
    let device = VulkanDevice::new(&options).unwrap();
    println!("on {}", device.info().name);
    test(&Runtime::new(device.clone()).unwrap());
    assert_eq!(device.validation_messages(), Vec::<String>::new());
}

#[test]
fn exact_path_agrees_with_the_float32_oracle() {
    exact_path(&cpu());
}

#[test]
fn exact_path_agrees_with_the_float32_oracle_on_vulkan() {
    on_vulkan(exact_path);
}

#[test]
fn fast_path_stays_close_to_the_oracle() {
    fast_path(&cpu());
}

#[test]
fn fast_path_stays_close_to_the_oracle_on_vulkan() {
    on_vulkan(fast_path);
}

fn exact_path(runtime: &Arc<Runtime>) {
    for case in cases() {
        let label = case.file_name().unwrap().to_string_lossy().into_owned();
        let tolerance =
            json(&case.join("meta.json"))["tolerances"]["float32"]["logits_max_abs"].as_f64().unwrap();
        let session = Session::open(runtime, &case, &EXACT);
        for prompt in prompts(&case, session.model.config().vocab_size) {
            let logits = session.forward(&prompt.ids, 0);
            for (row, oracle) in prompt.oracle.iter().enumerate() {
                let ours = &logits[prompt.first + row];
                let worst =
                    oracle.iter().zip(ours).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
                assert!(
                    worst <= tolerance,
                    "{label} {} row {row}: off by {worst}, allowed {tolerance}",
                    prompt.name
                );
            }
            let mut token = argmax(logits.last().unwrap());
            for (step, expected) in prompt.greedy.iter().enumerate() {
                assert_eq!(token, *expected, "{label} {} greedy step {step}", prompt.name);
                token = argmax(&session.forward(&[token], prompt.ids.len() + step)[0]);
            }
        }
    }
}

/// Launches of one decode step on a GPU, which a single sequence waits for one after the other: 6 of either kind of layer,
/// beside what a step has once. One more where heads have neither 64 nor 128 columns, as those of the second model: they turn
/// in a launch of their own. In a model with experts a dense layer has one more: its gate writes f32, and two int8 terms are
/// made from that.
#[test]
fn a_decode_step_is_few_launches() {
    on_vulkan(|runtime| {
        // Heads of whole groups, so that attention quantises its rows.
        for (case, layers) in [("qwen2_4bit_g64", 6 + 6), ("qwen3_moe_4bit_g32", 8 + 7)] {
            let profile = Arc::new(Profile::default());
            let (device, optimizations) = (runtime.device().clone(), Optimizations::on());
            let profiled = Runtime::with(device, optimizations, Some(profile.clone())).unwrap();
            let session = Session::open(&profiled, &golden().join("quantised").join(case), &FAST);
            profile.take();
            session.forward(&[1], 0);
            let kernels = profile.take();
            let launches: u64 = kernels.values().map(|time| time.launches).sum();
            // Embedding, table of angles, last norm, logits.
            assert_eq!(launches, layers + 4, "{case}: {kernels:#?}");
        }
    });
}

#[test]
fn a_cache_in_parts_of_strips_is_refused() {
    let case = cases().into_iter().next().unwrap();
    let session = Session::open(&cpu(), &case, &FAST);
    for block_size in [0, 8, 24] {
        let message = session.model.create_kv_cache(4, block_size).unwrap_err().to_string();
        assert!(
            message.contains("multiple of 16") && message.contains(&format!("given: {block_size}")),
            "{message}"
        );
    }
}

fn fast_path(runtime: &Arc<Runtime>) {
    for case in cases() {
        let label = case.file_name().unwrap().to_string_lossy().into_owned();
        let allowed = if label.contains("moe") { 0.1 } else { 0.03 };
        let session = Session::open(runtime, &case, &FAST);
        let mut divergences = Vec::new();
        for prompt in prompts(&case, session.model.config().vocab_size) {
            let logits = session.forward(&prompt.ids, 0);
            divergences.extend(prompt.oracle.iter().zip(&logits[prompt.first..]).map(|(a, b)| kl(a, b)));
        }
        let mean = divergences.iter().sum::<f64>() / divergences.len() as f64;
        println!("{label}: mean KL {mean:.5}");
        assert!(mean <= allowed, "{label}: mean KL {mean}, allowed {allowed}");
    }
}
