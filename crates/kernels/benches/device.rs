//! Speed of attention and sampling, launched on the CPU device.
//!
//! `cargo bench -p bessemer-kernels --bench device [-- FILTER]`; every figure is the best of several runs.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::{BufferDesc, Device, QueueKind, Slice, Submit};
use bessemer_kernels::attention::Attention;
use bessemer_kernels::sampling::{MAX_LOGPROBS, RowParams, Sample, SampleOut};
use bessemer_kernels::{Activations, Catalog, KvType, Op};

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |text: &str| filter.iter().all(|f| text.contains(f.as_str()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, cores] {
        let device: Arc<dyn Device> =
            CpuDevice::new(&CpuOptions { threads: Some(threads), memory_budget: None });
        let bench = Bench { catalog: Catalog::new(device) };
        for (what, kv_type, (heads, kv_heads, head_dim), rows, keys) in [
            ("prefill", KvType::F16, (32, 8, 128), 512, 512),
            ("prefill", KvType::F16, (16, 8, 128), 512, 512),
            ("prefill", KvType::F16, (32, 8, 128), 512, 4096),
            ("prefill", KvType::F32, (32, 8, 128), 512, 2048),
            ("prefill", KvType::F16, (14, 2, 64), 512, 2048),
            ("prefill", KvType::F16, (16, 16, 96), 512, 2048),
            ("decode", KvType::F16, (16, 8, 128), 1, 40),
            ("decode", KvType::F16, (16, 8, 128), 1, 300),
            ("decode", KvType::F16, (16, 8, 128), 1, 4096),
            ("decode", KvType::F16, (32, 8, 128), 1, 16384),
            ("decode", KvType::F16, (14, 2, 64), 1, 16384),
            ("decode", KvType::F16, (16, 16, 128), 1, 16384),
            ("decode", KvType::F32, (32, 8, 128), 1, 16384),
        ] {
            let title = format!(
                "attention {what} {kv_type:?} {heads}/{kv_heads}×{head_dim}, {rows} of {keys}, {threads} threads"
            );
            if wanted(&title) {
                let seconds = bench.attention(kv_type, (heads, kv_heads, head_dim), rows, keys);
                let seen: usize = (keys - rows + 1..=keys).sum();
                println!(
                    "{title}: {:.1} GFLOP/s, {:.1} GB/s, {:.0} µs",
                    4.0 * (seen * heads * head_dim) as f64 / seconds / 1e9,
                    2.0 * (keys * kv_heads * head_dim * kv_type.size()) as f64 / seconds / 1e9,
                    seconds * 1e6
                );
            }
        }
        let greedy = RowParams::default();
        let hot = RowParams { temperature: 1.0, ..greedy };
        for (what, params) in [
            ("greedy", greedy),
            ("plain", hot),
            ("top_k 40", RowParams { top_k: 40, ..hot }),
            ("top_p 0.95", RowParams { top_p: 0.95, ..hot }),
            ("top_p 0.95 of a flat distribution", RowParams { top_p: 0.95, temperature: 100.0, ..hot }),
            ("min_p 0.05", RowParams { min_p: 0.05, ..hot }),
            ("greedy with 5 logprobs", RowParams { logprobs: 5, ..greedy }),
        ] {
            let title = format!("sample {what} of 151936, {threads} threads");
            if wanted(&title) {
                println!("{title}: {:.1} µs", bench.sample(params) * 1e6);
            }
        }
    }
}

struct Bench {
    catalog: Catalog,
}

impl Bench {
    fn buffer(&self, bytes: &[u8]) -> Slice {
        let device = self.catalog.device();
        let buffer = device.create_buffer(&BufferDesc::own("bench", bytes.len() as u64)).expect("memory");
        device.write(&buffer.whole(), bytes).expect("a buffer that nobody uses");
        buffer.whole()
    }

    /// Seconds of one launch.
    fn time(&self, op: &dyn Op) -> f64 {
        let device = self.catalog.device();
        let mut encoder = device.create_encoder("bench").expect("an encoder");
        encoder.dispatch(&op.cpu(&self.catalog).expect("a valid operation")).expect("a valid dispatch");
        let commands = encoder.finish().expect("commands");
        let mut best = u64::MAX;
        let mut spent = 0;
        while spent < 500_000_000 {
            let submission = device.submit(QueueKind::Compute, Submit::new(&commands)).expect("a queue");
            let timing = submission.wait(Duration::from_secs(60)).expect("a kernel that does not fail");
            let took = timing.end_ns - timing.start_ns;
            best = best.min(took);
            spent += took.max(10_000);
        }
        best as f64 * 1e-9
    }

    fn attention(&self, kv_type: KvType, shape: (usize, usize, usize), rows: usize, keys: usize) -> f64 {
        const BLOCK: usize = 16;
        let (heads, kv_heads, head_dim) = shape;
        let q = random(rows * heads * head_dim);
        let cache = |elements: usize| match kv_type {
            KvType::F32 => self.buffer(&floats(&random(elements))),
            // Any finite half floats of moderate size.
            KvType::F16 => self
                .buffer(&words(random(elements).iter().map(|x| (x.to_bits() >> 8) as u16 & 0xbfff | 0x3000))),
        };
        let ids =
            |ids: Vec<u32>| self.buffer(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
        let blocks = keys.div_ceil(BLOCK);
        self.time(&Attention {
            q: self.buffer(&floats(&q)),
            key_cache: cache(blocks * BLOCK * kv_heads * head_dim),
            value_cache: cache(blocks * BLOCK * kv_heads * head_dim),
            kv_type,
            cache_rows: blocks * BLOCK,
            block_size: BLOCK,
            out: Activations::F32(self.buffer(&floats(&q))),
            row_seq: ids(vec![0; rows]),
            positions: ids((keys - rows..keys).map(|position| position as u32).collect()),
            // Scattered.
            block_tables: ids((0..blocks).map(|i| (i * 7 % blocks) as u32).collect()),
            blocks_per_seq: blocks,
            rows,
            heads,
            kv_heads,
            head_dim,
            scale: 0.1,
            window: None,
        })
    }

    fn sample(&self, params: RowParams) -> f64 {
        let vocab = 151_936;
        let logits: Vec<f32> = random(vocab).iter().map(|x| 4.0 * x).collect();
        self.time(&Sample {
            logits: self.buffer(&floats(&logits)),
            params: self.buffer(bytemuck::bytes_of(&params)),
            history: self.buffer(&[0; 4]),
            bias_ids: self.buffer(&[0; 4]),
            bias_values: self.buffer(&[0; 4]),
            masks: self.buffer(&[0; 4]),
            mask_words: 0,
            out: self.buffer(&[0; size_of::<SampleOut>()]),
            top_ids: self.buffer(&[0; 4 * MAX_LOGPROBS]),
            top_logprobs: self.buffer(&[0; 4 * MAX_LOGPROBS]),
            rows: 1,
            vocab,
        })
    }
}

/// About normal.
fn random(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| 2.0 * (uniform() + uniform() + uniform())).collect()
}

fn floats(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn words(x: impl Iterator<Item = u16>) -> Vec<u8> {
    x.flat_map(u16::to_le_bytes).collect()
}
