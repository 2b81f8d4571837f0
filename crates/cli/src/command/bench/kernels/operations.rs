//! One operation on one shape: what it must move and compute, and its launches with memory of their own.

use bessemer_kernels::linear::{
    CombinedExperts, GateActivation, Gated, GatedExperts, Linear, SlotExperts, Write,
};
use bessemer_kernels::rms_norm::{NormInput, RmsNorm};
use bessemer_kernels::rope::{RopeKv, RopeLayout};
use bessemer_kernels::router::{Combine, Normalise, Router, Scores};
use bessemer_kernels::sampling::{MAX_LOGPROBS, RowParams, Sample, SampleOut};
use bessemer_kernels::{KvType, View};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bench::{Bench, Prepared};
use super::operands::{
    BLOCK, EXPERTS, GROUP, HEAD_DIM, TOP_K, activations, attention, chosen, experts, int8, layout, normed,
    weights,
};

/// The rows that a product takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    F32,
    Int8,
    Int8x2,
    /// What a norm makes for a router and its experts.
    F32AndInt8,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    RmsNorm { dim: usize, to: Rows },
    Linear { name: &'static str, out: usize, inp: usize, x: Rows },
    RopeKv { heads: usize, kv_heads: usize, norms: bool },
    Attention { heads: usize, kv_heads: usize, context: usize },
    Gated { dim: usize },
    Router { experts: usize, top_k: usize },
    Experts { name: &'static str, out: usize, inp: usize, token: bool },
    GatedExperts { width: usize, inp: usize },
    CombinedExperts { out: usize, inp: usize },
    CombineNorm { top_k: usize, dim: usize },
    Sample { vocab: usize },
}

impl Rows {
    /// As a shape shows it.
    fn name(self) -> &'static str {
        match self {
            Self::Int8 => "",
            Self::F32 => ", f32",
            Self::Int8x2 => ", 2 terms",
            Self::F32AndInt8 => ", f32 and int8",
        }
    }

    /// Bytes of a row: codes, and of each group a scale and a sum.
    fn bytes(self, columns: usize) -> f64 {
        let int8 = columns as f64 * (1.0 + 8.0 / GROUP as f64);
        match self {
            Self::F32 => 4.0 * columns as f64,
            Self::Int8 => int8,
            Self::Int8x2 => 2.0 * int8,
            Self::F32AndInt8 => 4.0 * columns as f64 + int8,
        }
    }
}

/// An operation on so many rows of a model.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub model: &'static str,
    pub rows: usize,
    pub operation: Operation,
}

/// The least that must be done.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Bytes that come from memory or go there.
    pub bytes: f64,
    /// Multiplications and additions.
    pub operations: f64,
}

impl Case {
    pub fn kernel(&self) -> &'static str {
        match self.operation {
            Operation::RmsNorm { .. } => "rms_norm",
            Operation::Linear { name, .. } | Operation::Experts { name, .. } => name,
            Operation::RopeKv { .. } => "rope_kv",
            Operation::Attention { .. } => "attention",
            Operation::Gated { .. } => "gated",
            Operation::Router { .. } => "router",
            Operation::GatedExperts { .. } => "gated_experts",
            Operation::CombinedExperts { .. } => "combined_experts",
            Operation::CombineNorm { .. } => "combine_norm",
            Operation::Sample { .. } => "sample",
        }
    }

    pub fn shape(&self) -> String {
        match self.operation {
            Operation::Gated { dim } => format!("{dim}"),
            Operation::RmsNorm { dim, to } => format!("{dim}{}", to.name()),
            Operation::Linear { out, inp, x, .. } => format!("{out} × {inp}{}", x.name()),
            Operation::RopeKv { heads, kv_heads, .. } => format!("{heads}/{kv_heads} heads of {HEAD_DIM}"),
            Operation::Attention { heads, kv_heads, context } => {
                format!("{heads}/{kv_heads} × {HEAD_DIM}, {context} keys")
            }
            Operation::Router { experts, top_k } => format!("{top_k} of {experts}"),
            Operation::Experts { out, inp, .. } => format!("{TOP_K} of {EXPERTS} × {out} × {inp}"),
            Operation::GatedExperts { width, inp } => {
                format!("{TOP_K} of {EXPERTS} × 2 × {width} × {inp}")
            }
            Operation::CombinedExperts { out, inp } => format!("{TOP_K} of {EXPERTS} × {out} × {inp}"),
            Operation::CombineNorm { top_k, dim } => format!("{top_k} × {dim}"),
            Operation::Sample { vocab } => format!("greedy of {vocab}"),
        }
    }

    pub fn work(&self) -> Work {
        let rows = self.rows as f64;
        let int8 = |columns| Rows::Int8.bytes(columns);
        // Each expert that is visited is read once: all of them, once rows are many.
        let visited = |out: usize, inp: usize| {
            let experts = EXPERTS as f64 * (1.0 - (1.0 - TOP_K as f64 / EXPERTS as f64).powf(rows));
            experts * layout(1, out, inp).bytes() as f64
        };
        let (bytes, operations) = match self.operation {
            Operation::RmsNorm { dim, to } => {
                (rows * (4.0 * dim as f64 + to.bytes(dim)), 4.0 * rows * dim as f64)
            }
            Operation::Linear { out, inp, x, .. } => (
                layout(1, out, inp).bytes() as f64 + rows * (x.bytes(inp) + 4.0 * out as f64),
                2.0 * rows * out as f64 * inp as f64,
            ),
            Operation::RopeKv { heads, kv_heads, .. } => {
                let values = (HEAD_DIM * (heads + 2 * kv_heads)) as f64;
                let written = (HEAD_DIM * (4 * heads + 4 * kv_heads)) as f64;
                (rows * (4.0 * values + written), 6.0 * rows * values)
            }
            Operation::Attention { heads, kv_heads, context } => {
                // Rows of one prompt read its keys once; rows that decode have a sequence each.
                let caches = if self.rows > 16 { 1.0 } else { rows };
                let seen = if self.rows > 16 { context as f64 / 2.0 } else { context as f64 };
                let cache = caches * (context * kv_heads * HEAD_DIM * 2 * 2) as f64;
                let queries = rows * (4.0 * (heads * HEAD_DIM) as f64 + int8(heads * HEAD_DIM));
                (cache + queries, 4.0 * rows * seen * (heads * HEAD_DIM) as f64)
            }
            Operation::Gated { dim } => (rows * (8.0 * dim as f64 + int8(dim)), 5.0 * rows * dim as f64),
            Operation::Router { experts, top_k } => {
                (rows * (4 * experts + 8 * top_k) as f64, 4.0 * rows * experts as f64)
            }
            Operation::Experts { out, inp, token, .. } => {
                let slots = rows * TOP_K as f64;
                let inputs = if token { rows } else { slots };
                let moved = visited(out, inp) + inputs * int8(inp) + slots * 4.0 * out as f64;
                (moved, 2.0 * slots * out as f64 * inp as f64)
            }
            Operation::GatedExperts { width, inp } => {
                let slots = rows * TOP_K as f64;
                let moved = visited(2 * width, inp) + rows * int8(inp) + slots * 4.0 * width as f64;
                (moved, 4.0 * slots * width as f64 * inp as f64)
            }
            Operation::CombinedExperts { out, inp } => {
                let slots = rows * TOP_K as f64;
                let moved = visited(out, inp) + slots * 4.0 * inp as f64 + rows * 8.0 * out as f64;
                (moved, 2.0 * slots * out as f64 * inp as f64)
            }
            Operation::CombineNorm { top_k, dim } => {
                let moved = (4 * dim * (top_k + 2)) as f64 + int8(dim);
                (rows * moved, rows * (2 * top_k * dim + 4 * dim) as f64)
            }
            Operation::Sample { vocab } => (rows * 4.0 * vocab as f64, rows * vocab as f64),
        };
        Work { bytes, operations }
    }

    /// Launches that take turns on so many copies of their weights that `rotate` bytes pass by.
    pub fn prepare(&self, bench: &Bench, rotate: u64) -> anyhow::Result<Prepared> {
        let copies = |bytes: usize| (rotate as usize).div_ceil(bytes.max(1)).clamp(1, 48);
        let launches = |copies: usize| copies.max(if self.rows > 16 { 4 } else { 16 });
        let rows = self.rows;
        match self.operation {
            Operation::RmsNorm { dim, to } => {
                let op = RmsNorm {
                    x: NormInput::Given(bench.room(rows * dim * 4)?),
                    weight: bench.room(dim * 4)?,
                    out: normed(bench, rows, dim, to)?,
                    rows,
                    dim,
                    eps: 1e-6,
                };
                bench.record(&[op], launches(1))
            }
            Operation::Linear { out, inp, x, .. } => {
                let layout = layout(1, out, inp);
                let copies = copies(layout.bytes());
                let ops = (0..copies)
                    .map(|_| {
                        Ok(Linear {
                            x: activations(bench, rows, inp, x)?,
                            weights: weights(bench, layout)?,
                            out: bench.room(rows * out * 4)?,
                            rows,
                            write: Write::Store,
                        })
                    })
                    .collect::<anyhow::Result<Vec<_>>>()?;
                bench.record(&ops, launches(copies))
            }
            Operation::RopeKv { heads, kv_heads, norms } => {
                let stride = (heads + 2 * kv_heads) * HEAD_DIM;
                let qkv = bench.room(rows * stride * 4)?;
                let view = |head: usize| View { slice: qkv.clone(), stride, offset: head * HEAD_DIM };
                let norm = norms.then(|| bench.room(HEAD_DIM * 4)).transpose()?;
                let cache_rows = rows.next_multiple_of(BLOCK);
                let cache = cache_rows * kv_heads * HEAD_DIM * 2;
                let op = RopeKv {
                    q: view(0),
                    k: view(heads),
                    v: view(heads + kv_heads),
                    q_norm: norm.clone(),
                    k_norm: norm,
                    eps: 1e-6,
                    table: bench.room(rows * HEAD_DIM * 4)?,
                    slots: bench.put(&(0..rows as u32).collect::<Vec<_>>())?,
                    q_out: bench.room(rows * heads * HEAD_DIM * 4)?,
                    key_cache: bench.room(cache)?,
                    value_cache: bench.room(cache)?,
                    kv_type: KvType::F16,
                    cache_rows,
                    rows,
                    heads,
                    kv_heads,
                    head_dim: HEAD_DIM,
                    rot: HEAD_DIM,
                    layout: RopeLayout::Halves,
                };
                bench.record(&[op], launches(1))
            }
            Operation::Attention { heads, kv_heads, context } => {
                let seqs = if rows > 16 { 1 } else { rows };
                let cache_rows = context.next_multiple_of(BLOCK) * seqs;
                let cache = cache_rows * kv_heads * HEAD_DIM * 2;
                let copies = copies(2 * cache);
                let ops = (0..copies)
                    .map(|_| attention(bench, (rows, seqs), (heads, kv_heads), context, cache_rows))
                    .collect::<anyhow::Result<Vec<_>>>()?;
                bench.record(&ops, launches(copies))
            }
            Operation::Gated { dim } => {
                let both = bench.room(rows * 2 * dim * 4)?;
                let view = |offset| View { slice: both.clone(), stride: 2 * dim, offset };
                let op = Gated {
                    gate: view(0),
                    up: view(dim),
                    out: int8(bench, rows, dim)?,
                    rows,
                    dim,
                    activation: GateActivation::Silu,
                };
                bench.record(&[op], launches(1))
            }
            Operation::Router { experts, top_k } => {
                let mut random = SmallRng::seed_from_u64(1);
                let logits: Vec<f32> = (0..rows * experts).map(|_| random.random()).collect();
                let op = Router {
                    logits: bench.put(&logits)?,
                    ids: bench.room(rows * top_k * 4)?,
                    weights: bench.room(rows * top_k * 4)?,
                    rows,
                    experts,
                    top_k,
                    scores: Scores::Softmax,
                    normalise: Normalise::SumToOne,
                };
                bench.record(&[op], launches(1))
            }
            Operation::Experts { out, inp, token, .. } => {
                let layout = layout(EXPERTS, out, inp);
                let weights = weights(bench, layout)?;
                // Other experts in every launch, so that each reads its own from memory.
                let ops = (0..8)
                    .map(|seed| experts(bench, &weights, rows, token, seed))
                    .collect::<anyhow::Result<Vec<_>>>()?;
                bench.record(&ops, launches(16))
            }
            Operation::GatedExperts { width, inp } => {
                let weights = weights(bench, layout(EXPERTS, 2 * width, inp))?;
                let slots = rows * TOP_K;
                let ops = (0..8)
                    .map(|seed| {
                        Ok(GatedExperts {
                            x: int8(bench, rows, inp)?,
                            weights: weights.clone(),
                            experts: SlotExperts::Given(bench.put(&chosen(rows, seed))?),
                            top_k: TOP_K,
                            out: bench.room(slots * width * 4)?,
                            slots,
                            activation: GateActivation::Silu,
                        })
                    })
                    .collect::<anyhow::Result<Vec<_>>>()?;
                bench.record(&ops, launches(16))
            }
            Operation::CombinedExperts { out, inp } => {
                let weights = weights(bench, layout(EXPERTS, out, inp))?;
                let slots = rows * TOP_K;
                let ops = (0..8)
                    .map(|seed| {
                        Ok(CombinedExperts {
                            x: bench.filled(slots * inp * 4, &0.1_f32.to_le_bytes())?,
                            weights: weights.clone(),
                            ids: bench.put(&chosen(rows, seed))?,
                            shares: bench.filled(slots * 4, &0.1_f32.to_le_bytes())?,
                            out: bench.room(rows * out * 4)?,
                            rows,
                            top_k: TOP_K,
                        })
                    })
                    .collect::<anyhow::Result<Vec<_>>>()?;
                bench.record(&ops, launches(16))
            }
            Operation::CombineNorm { top_k, dim } => {
                let combine = Combine {
                    y: bench.room(rows * top_k * dim * 4)?,
                    weights: bench.room(rows * top_k * 4)?,
                    out: bench.room(rows * dim * 4)?,
                    rows,
                    top_k,
                    dim,
                };
                let op = RmsNorm {
                    x: NormInput::Combined(combine),
                    weight: bench.room(dim * 4)?,
                    out: int8(bench, rows, dim)?.into(),
                    rows,
                    dim,
                    eps: 1e-6,
                };
                bench.record(&[op], launches(1))
            }
            Operation::Sample { vocab } => {
                let mut random = SmallRng::seed_from_u64(1);
                let logits: Vec<f32> = (0..rows * vocab).map(|_| random.random()).collect();
                let op = Sample {
                    logits: bench.put(&logits)?,
                    params: bench.put(&vec![RowParams::default(); rows])?,
                    history: bench.room(4)?,
                    bias_ids: bench.room(4)?,
                    bias_values: bench.room(4)?,
                    masks: bench.room(4)?,
                    mask_words: 0,
                    out: bench.room(rows * size_of::<SampleOut>())?,
                    top_ids: bench.room(rows * MAX_LOGPROBS * 4)?,
                    top_logprobs: bench.room(rows * MAX_LOGPROBS * 4)?,
                    rows,
                    vocab,
                };
                bench.record(&[op], launches(1))
            }
        }
    }
}
