//! Recorded operations on the CPU device against direct calls.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::cpu::{CpuDevice, CpuOptions, Tile};
use bessemer_hal::{BufferDesc, Device, QueueKind, Slice, Submit};

use super::tests::{Quantised, Sample, seed};
use super::*;
use crate::golden::Random;
use crate::router::{Combine, ExpertSort};
use crate::{Activations, Catalog, Isa, Op, QuantisedRows, View};

struct Bench {
    device: Arc<dyn Device>,
    catalog: Catalog,
}

impl Bench {
    fn new() -> Self {
        let device: Arc<dyn Device> =
            CpuDevice::new(&CpuOptions { threads: Some(2), memory_budget: Some(1 << 28) });
        Self { catalog: Catalog::new(device.clone()), device }
    }

    fn empty<T>(&self, len: usize) -> Slice {
        self.device.create_buffer(&BufferDesc::own("test", (len * size_of::<T>()) as u64)).unwrap().whole()
    }

    fn upload<T: bytemuck::Pod>(&self, data: &[T]) -> Slice {
        let slice = self.empty::<T>(data.len());
        self.device.write(&slice, bytemuck::cast_slice(data)).unwrap();
        slice
    }

    fn download<T: bytemuck::Pod>(&self, slice: &Slice) -> Vec<T> {
        let mut data = vec![T::zeroed(); slice.size() as usize / size_of::<T>()];
        self.device.read(slice, bytemuck::cast_slice_mut(&mut data)).unwrap();
        data
    }

    fn int8(&self, rows: usize, dim: usize, group: usize) -> QuantisedRows {
        let groups = rows * dim / group;
        let (codes, scales, sums) =
            (self.empty::<i8>(rows * dim), self.empty::<f32>(groups), self.empty::<i32>(groups));
        QuantisedRows { codes, scales, sums, group }
    }

    fn run(&self, ops: &[&dyn Op]) {
        let mut encoder = self.device.create_encoder("test").unwrap();
        for op in ops {
            encoder.dispatch(&op.cpu(&self.catalog).unwrap()).unwrap();
            encoder.barrier();
        }
        let commands = encoder.finish().unwrap();
        let submission = self.device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
        submission.wait(Duration::from_secs(60)).unwrap();
    }
}

fn four_bits(random: &mut Random, shape: LinearShape) -> Sample {
    Sample::new(random, Encoding::Affine { bits: 4 }, shape, 64, ScaleType::Bf16)
}

#[test]
fn a_feed_forward_layer_runs_as_recorded() {
    let seed = seed();
    let mut random = Random(seed);
    let (rows, dim, hidden) = (5, 128, 192);
    let bench = Bench::new();
    let gate_up = four_bits(&mut random, LinearShape::new(2 * hidden, dim));
    let down = four_bits(&mut random, LinearShape::new(dim, hidden));
    let (x, residual, bias) = (random.normal(rows * dim), random.normal(rows * dim), random.normal(dim));

    let weights = |sample: &Sample, bias: Option<Slice>| Weights {
        layout: sample.layout,
        packed: bench.upload(&sample.packed),
        bias,
    };
    let (input, out) = (bench.upload(&x), bench.upload(&residual));
    let (first, middle, second) =
        (bench.int8(rows, dim, 64), bench.empty::<f32>(rows * 2 * hidden), bench.int8(rows, hidden, 64));
    bench.run(&[
        &Quantise { x: input, out: Activations::Int8(first.clone()), rows, dim },
        &Linear {
            x: Activations::Int8(first),
            weights: weights(&gate_up, None),
            out: middle.clone(),
            rows,
            write: Write::Store,
        },
        &Gated {
            gate: View { slice: middle.clone(), stride: 2 * hidden, offset: 0 },
            up: View { slice: middle.clone(), stride: 2 * hidden, offset: hidden },
            out: Activations::Int8(second.clone()),
            rows,
            dim: hidden,
            activation: GateActivation::Silu,
        },
        &Linear {
            x: Activations::Int8(second.clone()),
            weights: weights(&down, Some(bench.upload(&bias))),
            out: out.clone(),
            rows,
            write: Write::Add,
        },
    ]);

    let isa = Isa::detect();
    let q = Quantised::new(isa, &x, dim, 64);
    let mut y = vec![0.0; rows * 2 * hidden];
    let mut tile = Tile::from_slice(&mut y, 2 * hidden, 0..2 * hidden);
    let panels = 0..gate_up.layout.panels();
    multiply(isa, gate_up.matrix(), Input::Int8(q.rows()), 0..rows, panels, &mut tile, Epilogue::default())
        .unwrap();
    assert_eq!(bench.download::<f32>(&middle), y, "seed {seed}");
    let gated: Vec<f32> = y
        .chunks(2 * hidden)
        .flat_map(|row| {
            (0..hidden).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[hidden + i]).collect::<Vec<_>>()
        })
        .collect();
    let (codes, scales) = (bench.download::<i8>(&second.codes), bench.download::<f32>(&second.scales));
    for (i, want) in gated.iter().enumerate() {
        let scale = scales[i / 64];
        let got = f32::from(codes[i]) * scale;
        assert!((got - want).abs() <= 0.501 * scale + 1e-5, "seed {seed}: gate {i}: {got}, not {want}");
    }
    let sums = bench.download::<i32>(&second.sums);
    let mut y = residual.clone();
    let mut tile = Tile::from_slice(&mut y, dim, 0..dim);
    let rows_in = Int8Rows { codes: &codes, scales: &scales, sums: &sums };
    let epilogue = Epilogue { bias: Some(&bias), write: Write::Add };
    multiply(isa, down.matrix(), Input::Int8(rows_in), 0..rows, 0..8, &mut tile, epilogue).unwrap();
    assert_eq!(bench.download::<f32>(&out), y, "seed {seed}");
}

#[test]
fn experts_and_embeddings_run_as_recorded() {
    let seed = seed();
    let mut random = Random(seed);
    let (experts, tokens, top_k, out, inp) = (6, 7, 2_usize, 40, 128);
    let bench = Bench::new();
    let sample = four_bits(&mut random, LinearShape { experts, out, inp });
    let x = random.normal(tokens * inp);
    let chosen: Vec<usize> = (0..tokens * top_k).map(|_| random.below(experts)).collect();
    let mut order: Vec<u32> = (0..chosen.len() as u32).collect();
    order.sort_by_key(|slot| chosen[*slot as usize]);
    let offsets: Vec<u32> = (0..=experts).map(|e| chosen.iter().filter(|c| **c < e).count() as u32).collect();
    let weights = Weights { layout: sample.layout, packed: bench.upload(&sample.packed), bias: None };
    let y = bench.empty::<f32>(chosen.len() * out);
    let op = Experts {
        x: Activations::F32(bench.upload(&x)),
        weights: weights.clone(),
        ids: bench.upload(&chosen.iter().map(|c| *c as u32).collect::<Vec<_>>()),
        order: Some(SlotOrder { offsets: bench.upload(&offsets), order: bench.upload(&order) }),
        input: SlotInput::Token { top_k: top_k as u32 },
        out: y.clone(),
        slots: chosen.len(),
    };
    let ids = [3_u32, 0, 239, 240, u32::MAX];
    let rows = bench.empty::<f32>(ids.len() * inp);
    let embedding =
        Embedding { ids: bench.upload(&ids), weights, out: rows.clone(), rows: ids.len(), scale: 0.5 };
    bench.run(&[&op, &embedding]);
    assert!(
        Experts { order: None, ..op.clone() }.cpu(&bench.catalog).is_err(),
        "the CPU device reads the order"
    );

    let y = bench.download::<f32>(&y);
    for (slot, y) in y.chunks(out).enumerate() {
        let x = &x[slot / top_k * inp..][..inp];
        for (o, y) in y.iter().enumerate() {
            let row = &sample.weights[(chosen[slot] * out + o) * inp..][..inp];
            let want: f64 = row.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum();
            assert!(
                (f64::from(*y) - want).abs() < 1e-3,
                "seed {seed}: slot {slot} output {o}: {y}, not {want}"
            );
        }
    }
    let rows = bench.download::<f32>(&rows);
    for (row, id) in rows.chunks(inp).zip(ids) {
        for (k, v) in row.iter().enumerate() {
            let want = sample.weights.get(id as usize * inp + k).map_or(0.0, |w| *w as f32 * 0.5);
            assert_eq!(*v, want, "seed {seed}: id {id} input {k}");
        }
    }
}

/// Both halves of a layer of experts as one launch each: the bits of the operations that they stand for.
#[test]
fn halves_of_a_layer_of_experts_are_the_operations_in_them() {
    let seed = seed();
    let mut random = Random(seed);
    let (experts, rows, top_k, dim, width) = (6, 3, 2_usize, 128, 192);
    let slots = rows * top_k;
    let bench = Bench::new();
    let mut weights = |out, inp| {
        let sample = four_bits(&mut random, LinearShape { experts, out, inp });
        let bias = Some(bench.upload(&random.normal(experts * out)));
        Weights { layout: sample.layout, packed: bench.upload(&sample.packed), bias }
    };
    let (gate_up, down) = (weights(2 * width, dim), weights(dim, width));
    let chosen: Vec<u32> = (0..slots).map(|_| random.below(experts) as u32).collect();
    let ids = bench.upload(&chosen);
    let shares = bench.upload(&random.normal(slots));
    let (x, residual) = (bench.upload(&random.normal(rows * dim)), random.normal(rows * dim));
    let rows_in = Activations::Int8(bench.int8(rows, dim, 64));
    let activation = GateActivation::Silu;

    let sorted = SlotOrder { offsets: bench.empty::<u32>(experts + 1), order: bench.empty::<u32>(slots) };
    let sort = ExpertSort {
        ids: ids.clone(),
        offsets: sorted.offsets.clone(),
        order: sorted.order.clone(),
        rows,
        experts,
        top_k,
    };
    let (both, gated) = (bench.empty::<f32>(slots * 2 * width), bench.empty::<f32>(slots * width));
    let product = |x, weights: &Weights, input, out: &Slice| Experts {
        x,
        weights: weights.clone(),
        ids: ids.clone(),
        order: Some(sorted.clone()),
        input,
        out: out.clone(),
        slots,
    };
    let view = |offset| View { slice: both.clone(), stride: 2 * width, offset };
    let gate = Gated {
        gate: view(0),
        up: view(width),
        out: Activations::F32(gated.clone()),
        rows: slots,
        dim: width,
        activation,
    };
    let middle = Activations::Int8(bench.int8(slots, width, 64));
    let (y, out) = (bench.empty::<f32>(slots * dim), bench.upload(&residual));
    bench.run(&[
        &Quantise { x, out: rows_in.clone(), rows, dim },
        &sort,
        &product(rows_in.clone(), &gate_up, SlotInput::Token { top_k: top_k as u32 }, &both),
        &gate,
        &Quantise { x: gated.clone(), out: middle.clone(), rows: slots, dim: width },
        &product(middle, &down, SlotInput::Slot, &y),
        &Combine { y, weights: shares.clone(), out: out.clone(), rows, top_k, dim },
    ]);

    let (first, second) = (bench.empty::<f32>(slots * width), bench.upload(&residual));
    let halves = GatedExperts {
        x: rows_in,
        weights: gate_up,
        experts: SlotExperts::Given(ids.clone()),
        top_k,
        out: first.clone(),
        slots,
        activation,
    };
    let x = first.clone();
    let sum = CombinedExperts { x, weights: down, ids, shares, out: second.clone(), rows, top_k };
    bench.run(&[&halves, &sum]);
    assert_eq!(bench.download::<f32>(&first), bench.download::<f32>(&gated), "seed {seed}");
    assert_eq!(bench.download::<f32>(&second), bench.download::<f32>(&out), "seed {seed}");

    let narrow = CombinedExperts { out: bench.empty::<f32>(rows * dim - 1), ..sum };
    let message = narrow.cpu(&bench.catalog).unwrap_err().to_string();
    assert!(message.contains("combined_experts: out must hold"), "{message}");
    let none = GatedExperts { top_k: 0, ..halves };
    let message = none.cpu(&bench.catalog).unwrap_err().to_string();
    assert!(message.contains("at least one expert"), "{message}");
}

#[test]
fn operations_refuse_what_does_not_fit() {
    let bench = Bench::new();
    let sample = four_bits(&mut Random(1), LinearShape::new(16, 128));
    let linear = |x: Activations, out: usize| {
        let weights = Weights { layout: sample.layout, packed: bench.upload(&sample.packed), bias: None };
        Linear { x, weights, out: bench.empty::<f32>(out), rows: 2, write: Write::Store }
    };
    let message = |op: Linear| op.cpu(&bench.catalog).unwrap_err().to_string();
    let x = || Activations::F32(bench.empty::<f32>(256));
    assert!(linear(x(), 32).cpu(&bench.catalog).is_ok());
    assert!(message(linear(x(), 31)).contains("out"));
    assert!(message(linear(Activations::F32(bench.empty::<f32>(255)), 32)).contains("x must"));
    assert!(message(linear(Activations::Int8(bench.int8(2, 128, 32)), 32)).contains("groups of 32"));
    assert!(message(linear(Activations::Int8(bench.int8(1, 128, 64)), 32)).contains("codes"));
}

/// Two terms come within a hundredth of one term's error, and a row's bits are the same alone and in any batch.
#[test]
fn two_terms_are_precise_and_batch_invariant() {
    let seed = seed();
    let mut random = Random(seed);
    let bench = Bench::new();
    for (dim, group) in [(128, 32), (192, 64)] {
        let encoding = Encoding::Affine { bits: 4 };
        let sample = Sample::new(&mut random, encoding, LinearShape::new(50, dim), group, ScaleType::Bf16);
        let weights = Weights { layout: sample.layout, packed: bench.upload(&sample.packed), bias: None };
        let x = random.normal(40 * dim);
        let product = |first: usize, rows: usize, codes: fn(QuantisedRows) -> Activations, terms: usize| {
            let input = bench.upload(&x[first * dim..(first + rows) * dim]);
            let out = bench.empty::<f32>(rows * 50);
            let quantised = codes(bench.int8(rows * terms, dim, group));
            bench.run(&[
                &Quantise { x: input, out: quantised.clone(), rows, dim },
                &Linear {
                    x: quantised,
                    weights: weights.clone(),
                    out: out.clone(),
                    rows,
                    write: Write::Store,
                },
            ]);
            bench.download::<f32>(&out)
        };
        let exact = bench.empty::<f32>(40 * 50);
        bench.run(&[&Linear {
            x: Activations::F32(bench.upload(&x)),
            weights: weights.clone(),
            out: exact.clone(),
            rows: 40,
            write: Write::Store,
        }]);
        let exact = bench.download::<f32>(&exact);
        let error =
            |y: &[f32]| y.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        let (one, two) = (product(0, 40, Activations::Int8, 1), product(0, 40, Activations::Int8x2, 2));
        let (coarse, fine) = (error(&one), error(&two));
        assert!(coarse > 0.0 && fine < coarse / 100.0, "seed {seed}: {fine} against {coarse}");
        for (first, rows) in [(0, 1), (7, 1), (3, 2), (11, 3), (20, 17)] {
            let part = product(first, rows, Activations::Int8x2, 2);
            assert_eq!(part, two[first * 50..(first + rows) * 50], "seed {seed}: rows {first}+{rows}");
        }
    }
}
