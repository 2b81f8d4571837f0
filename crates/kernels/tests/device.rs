//! The operations around the matrix products, launched on the CPU device: the same bits for every number of threads, and
//! for a row alone.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::{BufferDesc, Device, QueueKind, Slice, Submit};
use bessemer_kernels::attention::Attention;
use bessemer_kernels::gather::GatherRows;
use bessemer_kernels::linear::Quantise;
use bessemer_kernels::rms_norm::{NormInput, NormOutput, RmsNorm};
use bessemer_kernels::rope::{RopeKv, RopeLayout, RopeScaling, RopeTable, inv_freq};
use bessemer_kernels::router::{Combine, ExpertSort, Normalise, Router, Scores};
use bessemer_kernels::sampling::{MAX_LOGPROBS, RowParams, Sample, SampleOut};
use bessemer_kernels::{Activations, Catalog, KvType, Op, QuantisedRows, View};
use bytemuck::Pod;

struct Bench {
    catalog: Catalog,
}

impl Bench {
    fn new(threads: usize) -> Self {
        let device: Arc<dyn Device> =
            CpuDevice::new(&CpuOptions { threads: Some(threads), memory_budget: None });
        Self { catalog: Catalog::new(device) }
    }

    fn put<T: Pod>(&self, data: &[T]) -> Slice {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let buffer =
            self.catalog.device().create_buffer(&BufferDesc::own("test", bytes.len() as u64)).unwrap();
        self.catalog.device().write(&buffer.whole(), bytes).unwrap();
        buffer.whole()
    }

    fn room<T: Pod>(&self, n: usize) -> Slice {
        self.put(&vec![T::zeroed(); n])
    }

    fn get<T: Pod>(&self, slice: &Slice) -> Vec<T> {
        let mut data = vec![T::zeroed(); slice.size() as usize / size_of::<T>()];
        self.catalog.device().read(slice, bytemuck::cast_slice_mut(&mut data)).unwrap();
        data
    }

    /// Launches the operations one after the other.
    fn run(&self, ops: &[&dyn Op]) {
        let device = self.catalog.device();
        let mut encoder = device.create_encoder("test").unwrap();
        for op in ops {
            encoder.dispatch(&op.cpu(&self.catalog).unwrap()).unwrap();
            encoder.barrier();
        }
        let commands = encoder.finish().unwrap();
        device
            .submit(QueueKind::Compute, Submit::new(&commands))
            .unwrap()
            .wait(Duration::from_secs(60))
            .unwrap();
    }
}

fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 24;
const QKV: usize = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
const LENGTH: usize = 70;

/// Norm, rotation, cache and attention over a sequence of [`LENGTH`] tokens, computed in chunks.
fn attend(threads: usize, kv_type: KvType, chunk: usize) -> Vec<f32> {
    let bench = Bench::new(threads);
    let x = random(1, LENGTH * QKV);
    let (freqs, attention_factor) = inv_freq(&RopeScaling::None, 1e4, 16, 4096);
    let weight = bench.put(&random(2, QKV));
    let (q_norm, k_norm, freqs) =
        (bench.put(&random(3, HEAD_DIM)), bench.put(&random(4, HEAD_DIM)), bench.put(&freqs));
    let cache_rows = 80;
    let cache = || bench.room::<u8>(cache_rows * KV_HEADS * HEAD_DIM * kv_type.size());
    let (key_cache, value_cache) = (cache(), cache());
    let blocks: Vec<u32> = vec![4, 0, 3, 1, 2];
    let block_tables = bench.put(&blocks);
    let mut result = vec![];
    let positions: Vec<u32> = (0..LENGTH as u32).collect();
    for positions in positions.chunks(chunk) {
        let rows = positions.len();
        let first = positions[0] as usize;
        let normed = bench.room::<f32>(rows * QKV);
        let norm = RmsNorm {
            x: NormInput::Given(bench.put(&x[first * QKV..][..rows * QKV])),
            weight: weight.clone(),
            out: Activations::F32(normed.clone()).into(),
            rows,
            dim: QKV,
            eps: 1e-6,
        };
        let slots: Vec<u32> = positions.iter().map(|p| blocks[*p as usize / 16] * 16 + p % 16).collect();
        let positions = bench.put(positions);
        let table = RopeTable {
            positions: positions.clone(),
            inv_freq: freqs.clone(),
            attention_factor,
            out: bench.room::<f32>(rows * 16),
            rows,
            rot: 16,
        };
        let view = |offset: usize| View { slice: normed.clone(), stride: QKV, offset: offset * HEAD_DIM };
        let rope = RopeKv {
            q: view(0),
            k: view(HEADS),
            v: view(HEADS + KV_HEADS),
            q_norm: Some(q_norm.clone()),
            k_norm: Some(k_norm.clone()),
            eps: 1e-6,
            table: table.out.clone(),
            slots: bench.put(&slots),
            q_out: bench.room::<f32>(rows * HEADS * HEAD_DIM),
            key_cache: key_cache.clone(),
            value_cache: value_cache.clone(),
            kv_type,
            cache_rows,
            rows,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            rot: 16,
            layout: RopeLayout::Halves,
        };
        let mixed = bench.room::<f32>(rows * HEADS * HEAD_DIM);
        let attention = Attention {
            q: rope.q_out.clone(),
            key_cache: key_cache.clone(),
            value_cache: value_cache.clone(),
            kv_type,
            cache_rows,
            block_size: 16,
            out: Activations::F32(mixed.clone()),
            row_seq: bench.room::<u32>(rows),
            positions,
            block_tables: block_tables.clone(),
            blocks_per_seq: blocks.len(),
            rows,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: 0.2,
            window: None,
        };
        bench.run(&[&norm, &table, &rope, &attention]);
        result.extend(bench.get::<f32>(&mixed));
    }
    result
}

#[test]
fn attention_has_the_same_bits_for_every_chunk_and_team() {
    for kv_type in [KvType::F32, KvType::F16] {
        let whole = attend(1, kv_type, LENGTH);
        assert!(whole.iter().all(|x| x.is_finite()) && whole.iter().any(|x| x.abs() > 0.1));
        for (threads, chunk) in [(3, LENGTH), (2, 1), (4, 33)] {
            let other = attend(threads, kv_type, chunk);
            assert!(whole.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()), "{threads} {chunk}");
        }
    }
}

/// Each head's columns are quantised by the workgroup that finishes them.
#[test]
fn attention_as_int8_is_attention_quantised() {
    let (rows, heads, kv_heads, head_dim, cache_rows) = (21, 4, 2, 64, 48);
    let dim = heads * head_dim;
    for threads in [1, 3] {
        let bench = Bench::new(threads);
        let cache = |seed| bench.put(&random(seed, cache_rows * kv_heads * head_dim));
        let (q, key_cache, value_cache) = (bench.put(&random(1, rows * dim)), cache(2), cache(3));
        let positions: Vec<u32> = (11..11 + rows as u32).collect();
        let attention = |out| Attention {
            q: q.clone(),
            key_cache: key_cache.clone(),
            value_cache: value_cache.clone(),
            kv_type: KvType::F32,
            cache_rows,
            block_size: 16,
            out,
            row_seq: bench.room::<u32>(rows),
            positions: bench.put(&positions),
            block_tables: bench.put(&[2_u32, 0, 1]),
            blocks_per_seq: 3,
            rows,
            heads,
            kv_heads,
            head_dim,
            scale: 0.1,
            window: None,
        };
        let x = bench.room::<f32>(rows * dim);
        bench.run(&[&attention(Activations::F32(x.clone()))]);
        for (terms, form) in [(1, Activations::Int8 as fn(_) -> _), (2, Activations::Int8x2)] {
            let [want, got] = [0, 1].map(|_| int8_room(&bench, terms * rows, dim));
            bench.run(&[
                &Quantise { x: x.clone(), out: form(want.clone()), rows, dim },
                &attention(form(got.clone())),
            ]);
            assert_eq!(int8_bits(&bench, &got), int8_bits(&bench, &want), "{terms} terms, {threads} threads");
        }
        let narrow = Activations::Int8(QuantisedRows { group: 48, ..int8_room(&bench, rows, dim) });
        let message = attention(narrow).cpu(&bench.catalog).unwrap_err().to_string();
        assert!(message.contains("no whole groups of 48"), "{message}");
    }
}

/// Room for int8 rows; `rows` counts those of codes.
fn int8_room(bench: &Bench, rows: usize, dim: usize) -> QuantisedRows {
    let group = 64;
    let (codes, scales) = (bench.room::<i8>(rows * dim), bench.room::<f32>(rows * dim / group));
    QuantisedRows { codes, scales, sums: bench.room::<i32>(rows * dim / group), group }
}

fn int8_bits(bench: &Bench, rows: &QuantisedRows) -> (Vec<i8>, Vec<u32>, Vec<i32>) {
    (bench.get(&rows.codes), bench.get(&rows.scales), bench.get(&rows.sums))
}

/// Every form of a norm's rows is what separate launches make of them.
#[test]
fn a_norm_in_one_launch_is_the_norm_in_steps() {
    let (rows, dim, top_k) = (37, 192, 3);
    for threads in [1, 3] {
        let bench = Bench::new(threads);
        let weight = bench.put(&random(2, dim));
        let (y, weights) = (bench.put(&random(3, rows * top_k * dim)), bench.put(&random(4, rows * top_k)));
        let norm = |x, out| RmsNorm { x, weight: weight.clone(), out, rows, dim, eps: 1e-6 };
        for combined in [false, true] {
            let combine = |x: &Slice| {
                let (y, weights, out) = (y.clone(), weights.clone(), x.clone());
                Combine { y, weights, out, rows, top_k, dim }
            };
            let rows_of = |x: &Slice| match combined {
                false => NormInput::Given(x.clone()),
                true => NormInput::Combined(combine(x)),
            };
            let x = || bench.put(&random(1, rows * dim));
            let (sums, normed) = (x(), bench.room::<f32>(rows * dim));
            if combined {
                bench.run(&[&combine(&sums)]);
            }
            bench.run(&[&norm(NormInput::Given(sums.clone()), Activations::F32(normed.clone()).into())]);
            let quantised = |out: Activations| Quantise { x: normed.clone(), out, rows, dim };
            let (one, two) = (int8_room(&bench, rows, dim), int8_room(&bench, 2 * rows, dim));
            bench.run(&[
                &quantised(Activations::Int8(one.clone())),
                &quantised(Activations::Int8x2(two.clone())),
            ]);

            let (plain, got) = (bench.room::<f32>(rows * dim), int8_room(&bench, rows, dim));
            let mut own = x();
            bench.run(&[&norm(rows_of(&own), NormOutput::Both { f32: plain.clone(), int8: got.clone() })]);
            assert_eq!(bench.get::<u32>(&plain), bench.get::<u32>(&normed));
            assert_eq!(int8_bits(&bench, &got), int8_bits(&bench, &one));
            assert_eq!(bench.get::<u32>(&own), bench.get::<u32>(&sums), "what is left in x");
            for (terms, want) in [(1, &one), (2, &two)] {
                own = x();
                let got = int8_room(&bench, terms * rows, dim);
                let out = match terms {
                    1 => Activations::Int8(got.clone()),
                    _ => Activations::Int8x2(got.clone()),
                };
                bench.run(&[&norm(rows_of(&own), out.into())]);
                assert_eq!(int8_bits(&bench, &got), int8_bits(&bench, want), "{terms} terms");
            }
        }
    }
}

#[test]
fn experts_are_chosen_sorted_and_combined() {
    let (rows, experts, top_k, dim) = (50, 16, 4, 40);
    let results = [1, 4].map(|threads| {
        let bench = Bench::new(threads);
        let router = Router {
            logits: bench.put(&random(1, rows * experts)),
            ids: bench.room::<u32>(rows * top_k),
            weights: bench.room::<f32>(rows * top_k),
            rows,
            experts,
            top_k,
            scores: Scores::Softmax,
            normalise: Normalise::SumToOne,
        };
        let sort = ExpertSort {
            ids: router.ids.clone(),
            offsets: bench.room::<u32>(experts + 1),
            order: bench.room::<u32>(rows * top_k),
            rows,
            experts,
            top_k,
        };
        // Every expert gives ones: a row gets the sum of its weights, which is 1, on top of what it had.
        let combine = Combine {
            y: bench.put(&vec![1.0_f32; rows * top_k * dim]),
            weights: router.weights.clone(),
            out: bench.put(&random(5, rows * dim)),
            rows,
            top_k,
            dim,
        };
        let gather = GatherRows {
            x: combine.out.clone(),
            indices: bench.put(&[3_u32, 49, 50, 0]),
            out: bench.room::<f32>(4 * dim),
            n: 4,
            dim,
        };
        bench.run(&[&router, &sort, &combine, &gather]);
        let (ids, order) = (bench.get::<u32>(&sort.ids), bench.get::<u32>(&sort.order));
        assert!(order.is_sorted_by_key(|&slot| (ids[slot as usize], slot)));
        let (out, gathered) = (bench.get::<f32>(&combine.out), bench.get::<f32>(&gather.out));
        for (before, after) in random(5, rows * dim).iter().zip(&out) {
            assert!((after - before - 1.0).abs() < 1e-5);
        }
        assert_eq!(gathered, [&out[3 * dim..4 * dim], &out[49 * dim..], &[0.0; 40], &out[..dim]].concat());
        (ids, order, bench.get::<u32>(&sort.offsets), out)
    });
    assert_eq!(results[0], results[1]);
}

#[test]
fn a_row_samples_the_same_token_alone() {
    let vocab = 777;
    let logits: Vec<f32> = random(1, 6 * vocab).iter().map(|x| 6.0 * x).collect();
    let hot = RowParams { temperature: 0.9, seed: 42, logprobs: 2, ..RowParams::default() };
    let params: [RowParams; 6] = [
        RowParams::default(),
        hot,
        RowParams { top_k: 30, step: 9, ..hot },
        RowParams { top_p: 0.9, step: 10, ..hot },
        RowParams { min_p: 0.1, seed: 1 << 40, ..hot },
        RowParams { history_start: 1, history_len: 3, presence_penalty: 100.0, ..RowParams::default() },
    ];
    let greedy: Vec<u32> = logits
        .chunks(vocab)
        .map(|row| (0..vocab).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32)
        .collect();
    let run = |threads: usize, rows: std::ops::Range<usize>| {
        let bench = Bench::new(threads);
        let n = rows.len();
        let sample = Sample {
            logits: bench.put(&logits[rows.start * vocab..rows.end * vocab]),
            params: bench.put(&params[rows]),
            history: bench.put(&[0, greedy[5], greedy[5], 1]),
            bias_ids: bench.room::<u32>(1),
            bias_values: bench.room::<f32>(1),
            masks: bench.room::<u32>(1),
            mask_words: 0,
            out: bench.room::<SampleOut>(n),
            top_ids: bench.room::<u32>(n * MAX_LOGPROBS),
            top_logprobs: bench.room::<f32>(n * MAX_LOGPROBS),
            rows: n,
            vocab,
        };
        bench.run(&[&sample]);
        (bench.get::<SampleOut>(&sample.out), bench.get::<u32>(&sample.top_ids))
    };
    let (batch, top) = run(3, 0..6);
    assert_eq!(batch[0].token, greedy[0]);
    assert_ne!(batch[5].token, greedy[5]);
    for row in 0..6 {
        let (alone, alone_top) = run(1, row..row + 1);
        assert_eq!(
            (alone[0], &alone_top[..]),
            (batch[row], &top[row * MAX_LOGPROBS..][..MAX_LOGPROBS]),
            "{row}"
        );
    }
    assert_eq!(top[MAX_LOGPROBS], greedy[1]);
}

#[test]
fn a_buffer_that_is_too_small_is_named() {
    let bench = Bench::new(1);
    let norm = RmsNorm {
        x: NormInput::Given(bench.room::<f32>(8)),
        weight: bench.room::<f32>(7),
        out: Activations::F32(bench.room::<f32>(8)).into(),
        rows: 1,
        dim: 8,
        eps: 1e-6,
    };
    let message = norm.cpu(&bench.catalog).unwrap_err().to_string();
    assert!(message.contains("rms_norm: weight") && message.contains("28 bytes"), "{message}");
}

#[test]
fn a_cache_in_parts_of_strips_is_refused() {
    let bench = Bench::new(1);
    let attention = |block_size: usize| Attention {
        q: bench.room::<f32>(8),
        key_cache: bench.room::<f32>(48 * 8),
        value_cache: bench.room::<f32>(48 * 8),
        kv_type: KvType::F32,
        cache_rows: 48,
        block_size,
        out: Activations::F32(bench.room::<f32>(8)),
        row_seq: bench.room::<u32>(1),
        positions: bench.room::<u32>(1),
        block_tables: bench.room::<u32>(1),
        blocks_per_seq: 1,
        rows: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 8,
        scale: 1.0,
        window: None,
    };
    assert!(attention(48).cpu(&bench.catalog).is_ok());
    let message = attention(24).cpu(&bench.catalog).unwrap_err().to_string();
    assert!(message.contains("block_size must be a multiple of 16") && message.contains("24"), "{message}");
}
