//! Every kernel against plain arithmetic in f64, against each other bit for bit, and against the oracle.

use std::time::{SystemTime, UNIX_EPOCH};

use bessemer_hal::cpu::Tile;

use super::*;
use crate::Isa;
use crate::golden::{Golden, Random};

pub(super) fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Rows of codes as a little-endian bit stream.
fn stream(codes: &[u8], inp: usize, bits: usize) -> Vec<u8> {
    let mut bytes = vec![];
    for row in codes.chunks(inp) {
        let (mut word, mut filled) = (0_u32, 0);
        for &code in row {
            word |= u32::from(code) << filled;
            filled += bits;
            while filled >= 8 {
                bytes.push(word as u8);
                word >>= 8;
                filled -= 8;
            }
        }
        assert_eq!(filled, 0);
    }
    bytes
}

const FP4: [f64; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// A random matrix: packed, and what it means.
pub(super) struct Sample {
    pub(super) layout: LinearLayout,
    pub(super) packed: Vec<u8>,
    /// `[experts · out][inp]`.
    pub(super) weights: Vec<f64>,
}

/// Values of a type, as bytes and exactly.
fn values(random: &mut Random, count: usize, scale_type: ScaleType) -> (Vec<u8>, Vec<f64>) {
    let mut bytes = vec![];
    let mut exact = vec![];
    for v in random.normal(count) {
        let v = v * 0.1;
        match scale_type {
            ScaleType::F32 => bytes.extend(v.to_le_bytes()),
            ScaleType::F16 => bytes.extend(half::f16::from_f32(v).to_le_bytes()),
            _ => bytes.extend(half::bf16::from_f32(v).to_le_bytes()),
        }
        exact.push(match scale_type {
            ScaleType::F32 => f64::from(v),
            ScaleType::F16 => half::f16::from_f32(v).to_f64(),
            _ => half::bf16::from_f32(v).to_f64(),
        });
    }
    (bytes, exact)
}

impl Sample {
    pub(super) fn new(
        random: &mut Random,
        encoding: Encoding,
        shape: LinearShape,
        group: usize,
        st: ScaleType,
    ) -> Self {
        let layout = LinearLayout::new(encoding, shape, group, st).unwrap();
        let rows = shape.experts * shape.out;
        let count = rows * shape.inp;
        let mut packed = vec![0xAA; layout.bytes()];
        let (bytes, scales, biases, weights);
        match encoding {
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 => {
                let of = match encoding {
                    Encoding::F32 => ScaleType::F32,
                    Encoding::F16 => ScaleType::F16,
                    _ => ScaleType::Bf16,
                };
                (bytes, weights) = values(random, count, of);
                (scales, biases) = (None, None);
            }
            Encoding::Affine { bits } => {
                let codes: Vec<u8> = (0..count).map(|_| random.below(1 << bits) as u8).collect();
                bytes = stream(&codes, shape.inp, usize::from(bits));
                let (s, s_exact) = values(random, count / group, st);
                let (b, b_exact) = values(random, count / group, st);
                weights = (0..count)
                    .map(|i| f64::from(codes[i]) * s_exact[i / group] + b_exact[i / group])
                    .collect();
                (scales, biases) = (Some((st, s)), Some(b));
            }
            Encoding::Mxfp4 => {
                let codes: Vec<u8> = (0..count).map(|_| random.below(16) as u8).collect();
                bytes = stream(&codes, shape.inp, 4);
                let s: Vec<u8> = (0..count / 32).map(|_| 120 + random.below(10) as u8).collect();
                weights = (0..count)
                    .map(|i| FP4[usize::from(codes[i])] * (f64::from(s[i / 32]) - 127.0).exp2())
                    .collect();
                (scales, biases) = (Some((ScaleType::E8m0, s)), None);
            }
        }
        let scales = scales.as_ref().map(|(t, s)| (*t, s.as_slice()));
        let source = Source { weights: &bytes, scales, biases: biases.as_deref() };
        let panels = shape.experts * layout.panels();
        let middle = panels / 2;
        let (first, second) = packed.split_at_mut(middle * layout.panel_bytes());
        pack(&layout, &source, 0..middle, first).unwrap();
        pack(&layout, &source, middle..panels, second).unwrap();
        Self { layout, packed, weights }
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.layout, &self.packed).unwrap()
    }

    /// `x · Wᵀ` of one expert in f64, and the same with all terms positive, as a yardstick for errors.
    fn product(&self, expert: usize, x: &[f64]) -> Vec<(f64, f64)> {
        let (out, inp) = (self.layout.out(), self.layout.inp());
        let rows = self.weights[expert * out * inp..(expert + 1) * out * inp].chunks(inp);
        rows.map(|w| {
            let terms = w.iter().zip(x).map(|(w, x)| w * x);
            (terms.clone().sum(), terms.map(f64::abs).sum())
        })
        .collect()
    }
}

/// Int8 rows with their storage.
pub(super) struct Quantised {
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Quantised {
    pub(super) fn new(isa: Isa, x: &[f32], inp: usize, block: usize) -> Self {
        let blocks = x.len() / block;
        let mut q = Self { codes: vec![0; x.len()], scales: vec![0.0; blocks], sums: vec![0; blocks] };
        for (r, x) in x.chunks(inp).enumerate() {
            let per_row = inp / block;
            let to = Int8RowMut {
                codes: &mut q.codes[r * inp..(r + 1) * inp],
                scales: &mut q.scales[r * per_row..(r + 1) * per_row],
                sums: &mut q.sums[r * per_row..(r + 1) * per_row],
            };
            quantise_row(isa, x, block, to).unwrap();
        }
        q
    }

    pub(super) fn rows(&self) -> Int8Rows<'_> {
        Int8Rows { codes: &self.codes, scales: &self.scales, sums: &self.sums }
    }

    /// What the codes mean.
    fn values(&self, block: usize) -> Vec<f64> {
        self.codes
            .iter()
            .enumerate()
            .map(|(i, q)| f64::from(*q) * f64::from(self.scales[i / block]))
            .collect()
    }
}

/// The whole product in tiles of some panels.
fn tiled(isa: Isa, m: Matrix<'_>, x: Input<'_>, rows: usize, panels_per_tile: usize) -> Vec<f32> {
    let out = m.layout().out();
    let mut y = vec![f32::NAN; rows * out];
    for first in (0..m.layout().panels()).step_by(panels_per_tile) {
        let panels = first..(first + panels_per_tile).min(m.layout().panels());
        let mut tile = Tile::from_slice(&mut y, out, first * LANES..(panels.end * LANES).min(out));
        multiply(isa, m, x, 0..rows, panels, &mut tile, Epilogue::default()).unwrap();
    }
    y
}

fn encodings() -> Vec<(Encoding, usize, ScaleType)> {
    let mut all = vec![
        (Encoding::F32, 1, ScaleType::F32),
        (Encoding::F16, 1, ScaleType::F32),
        (Encoding::Bf16, 1, ScaleType::F32),
        (Encoding::Mxfp4, 32, ScaleType::E8m0),
    ];
    for (i, bits) in [2, 3, 4, 5, 6, 8].into_iter().enumerate() {
        for (j, group) in [32, 64, 128].into_iter().enumerate() {
            let st = [ScaleType::Bf16, ScaleType::F16, ScaleType::F32][(i + j) % 3];
            all.push((Encoding::Affine { bits }, group, st));
        }
    }
    all
}

const ROWS: [usize; 7] = [1, 2, 3, 5, 16, 17, 33];

#[test]
fn products_agree_with_plain_arithmetic_on_every_instruction_set() {
    let seed = seed();
    let mut random = Random(seed);
    for (encoding, group, st) in encodings() {
        for out in [1, 15, 17, 100] {
            let inp = if group == 1 { 1 + random.below(200) } else { 128 * (1 + random.below(3)) };
            let sample = Sample::new(&mut random, encoding, LinearShape::new(out, inp), group, st);
            let x = random.normal(33 * inp);
            let mut int8: Option<Vec<f32>> = None;
            let mut exact: Option<Vec<f32>> = None;
            for isa in Isa::all_available() {
                let what = format!("seed {seed}, {encoding:?} group {group} {st:?}, {out} × {inp}, {isa:?}");
                let input = Input::F32 { x: &x, stride: inp };
                let y = tiled(isa, sample.matrix(), input, 33, 100);
                for (r, y) in y.chunks(out).enumerate() {
                    let x: Vec<f64> = x[r * inp..(r + 1) * inp].iter().map(|v| f64::from(*v)).collect();
                    for (o, ((want, scale), y)) in sample.product(0, &x).into_iter().zip(y).enumerate() {
                        let error = (f64::from(*y) - want).abs();
                        assert!(error <= 1e-6 * scale + 1e-6, "{what}: row {r} output {o}: {y}, not {want}");
                    }
                }
                assert_eq!(*exact.get_or_insert_with(|| y.clone()), y, "{what}: sets disagree");
                for rows in ROWS {
                    assert_eq!(
                        tiled(isa, sample.matrix(), input, rows, 2),
                        y[..rows * out],
                        "{what}: {rows} rows"
                    );
                }
                if group == 1 {
                    continue;
                }
                let block = sample.layout.block();
                let q = Quantised::new(isa, &x, inp, block);
                let input = Input::Int8(q.rows());
                let y = tiled(isa, sample.matrix(), input, 33, 100);
                let meant = q.values(block);
                for (r, y) in y.chunks(out).enumerate() {
                    let want = sample.product(0, &meant[r * inp..(r + 1) * inp]);
                    for (o, ((want, scale), y)) in want.into_iter().zip(y).enumerate() {
                        let error = (f64::from(*y) - want).abs();
                        assert!(
                            error <= 2e-6 * scale + 1e-6,
                            "{what}: int8 row {r} output {o}: {y}, not {want}"
                        );
                    }
                }
                assert_eq!(*int8.get_or_insert_with(|| y.clone()), y, "{what}: sets disagree on int8");
                for rows in ROWS {
                    assert_eq!(
                        tiled(isa, sample.matrix(), input, rows, 2),
                        y[..rows * out],
                        "{what}: {rows} rows"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_it_has_in_a_batch() {
    let seed = seed();
    let mut random = Random(seed);
    // More rows than a block holds, at different places in it.
    let (rows, inp, out) = (150, 128, 40);
    for (encoding, group, st) in encodings() {
        let sample = Sample::new(&mut random, encoding, LinearShape::new(out, inp), group, st);
        let x = random.normal(rows * inp);
        for isa in Isa::all_available() {
            let q = Quantised::new(isa, &x, inp, sample.layout.block());
            let mut inputs = vec![Input::F32 { x: &x, stride: inp }];
            if sample.layout.is_quantised() {
                inputs.push(Input::Int8(q.rows()));
            }
            for input in inputs {
                let together = tiled(isa, sample.matrix(), input, rows, 100);
                for row in [0, 1, 7, 63, 127, 128, 149] {
                    let mut y = vec![0.0; rows * out];
                    let mut tile = Tile::from_slice(&mut y, out, 0..out);
                    multiply(isa, sample.matrix(), input, row..row + 1, 0..3, &mut tile, Epilogue::default())
                        .unwrap();
                    let range = row * out..(row + 1) * out;
                    assert_eq!(
                        y[range.clone()],
                        together[range],
                        "seed {seed}, {encoding:?} {isa:?} row {row}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_are_read_back_as_they_were() {
    let seed = seed();
    let mut random = Random(seed);
    for (encoding, group, st) in encodings() {
        let shape = LinearShape { experts: 2, out: 21, inp: 256 };
        let sample = Sample::new(&mut random, encoding, shape, group, st);
        let mut row = vec![0.0; 256];
        for r in [0, 1, 16, 20, 21, 41] {
            unpack_row(&sample.layout, &sample.packed, r, &mut row).unwrap();
            for (k, (v, w)) in row.iter().zip(&sample.weights[r * 256..]).enumerate() {
                assert_eq!(*v, *w as f32, "seed {seed}, {encoding:?} {group} {st:?}: row {r} input {k}");
            }
        }
        assert!(unpack_row(&sample.layout, &sample.packed, 42, &mut row).is_err());
    }
}

#[test]
fn bias_and_residual_join_the_result() {
    let seed = seed();
    let mut random = Random(seed);
    let sample = Sample::new(&mut random, Encoding::Bf16, LinearShape::new(20, 64), 1, ScaleType::F32);
    let (x, bias, before) = (random.normal(3 * 64), random.normal(20), random.normal(60));
    let input = Input::F32 { x: &x, stride: 64 };
    let plain = tiled(Isa::detect(), sample.matrix(), input, 3, 9);
    let mut y = before.clone();
    let epilogue = Epilogue { bias: Some(&bias), write: Write::Add };
    let mut tile = Tile::from_slice(&mut y, 20, 0..20);
    multiply(Isa::detect(), sample.matrix(), input, 0..3, 0..2, &mut tile, epilogue).unwrap();
    for i in 0..60 {
        assert_eq!(y[i], before[i] + (plain[i] + bias[i % 20]), "seed {seed}, {i}");
    }
}

#[test]
fn quantised_rows_follow_the_formula_and_show_what_is_not_finite() {
    let seed = seed();
    let mut random = Random(seed);
    for block in [32, 64] {
        let mut x = random.normal(8 * block);
        x[2 * block + 3] = f32::NAN;
        x[3 * block + 31] = f32::NEG_INFINITY;
        x[4 * block..5 * block].fill(0.0);
        x[5 * block..6 * block].fill(1e-40);
        x[6 * block] = f32::MAX;
        for isa in Isa::all_available() {
            let q = Quantised::new(isa, &x, x.len(), block);
            for (b, x) in x.chunks(block).enumerate() {
                let codes = &q.codes[b * block..(b + 1) * block];
                let largest = x.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                if x.iter().any(|v| !v.is_finite()) {
                    assert!(q.scales[b].is_nan() && codes.iter().all(|c| *c == 0), "seed {seed} {isa:?}");
                } else if largest < 1e-30 {
                    assert_eq!((q.scales[b], q.sums[b]), (0.0, 0), "seed {seed} {isa:?}");
                } else {
                    assert_eq!(q.scales[b], largest / 127.0);
                    let want = x.iter().map(|v| (v * (127.0 / largest)).round_ties_even() as i8);
                    assert!(want.eq(codes.iter().copied()), "seed {seed} {isa:?} block {b} of {block}");
                    assert_eq!(q.sums[b], codes.iter().map(|c| i32::from(*c)).sum::<i32>());
                }
            }
        }
    }
}

/// A matrix of the oracle: affine scales are f32 that hold bf16 values.
fn oracle(golden: &Golden, case: &serde_json::Value, shape: LinearShape) -> (LinearLayout, Vec<u8>) {
    let key = case["key"].as_str().unwrap();
    let bytes = |name: &str| -> Vec<u8> {
        golden.words(&format!("{key}.{name}")).into_iter().flat_map(u32::to_le_bytes).collect()
    };
    let weights = bytes("weight");
    let (scales, biases) = (bytes("scales"), (case["mode"] == "affine").then(|| bytes("biases")));
    let (encoding, given) = match &biases {
        Some(_) => (Encoding::Affine { bits: case["bits"].as_u64().unwrap() as u8 }, ScaleType::F32),
        None => (Encoding::Mxfp4, ScaleType::E8m0),
    };
    let source = Source { weights: &weights, scales: Some((given, &scales)), biases: biases.as_deref() };
    let group = case["group_size"].as_u64().unwrap() as usize;
    let layout = LinearLayout::new(encoding, shape, group, source.scale_type()).unwrap();
    assert_eq!(layout.scale_type(), if biases.is_some() { ScaleType::Bf16 } else { ScaleType::E8m0 });
    let mut packed = vec![0; layout.bytes()];
    pack(&layout, &source, 0..shape.experts * layout.panels(), &mut packed).unwrap();
    (layout, packed)
}

fn assert_close(got: &[f32], want: &[f32], bound: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound, "{what}: off by {worst}, {bound} is allowed");
}

#[test]
fn quantised_products_agree_with_the_oracle() {
    let golden = Golden::open("quantised_matmul");
    let x = golden.f32("x");
    for case in golden.cases() {
        let key = case["key"].as_str().unwrap();
        let (out, inp) = (case["n"].as_u64().unwrap() as usize, case["k"].as_u64().unwrap() as usize);
        let (layout, packed) = oracle(&golden, case, LinearShape::new(out, inp));
        let mut row = vec![0.0; inp];
        for (r, want) in golden.f32(&format!("{key}.dequantised_rows_0_4")).chunks(inp).enumerate() {
            unpack_row(&layout, &packed, r, &mut row).unwrap();
            assert_close(&row, want, 1e-6, key);
        }
        let want = golden.f32(&format!("{key}.y"));
        let matrix = Matrix::new(layout, &packed).unwrap();
        for isa in Isa::all_available() {
            for rows in [1, 2, 5, 17, 64] {
                let y = tiled(isa, matrix, Input::F32 { x: &x, stride: inp }, rows, 1);
                assert_close(&y, &want[..rows * out], 2e-4, &format!("{key} {isa:?} {rows} rows"));
            }
        }
    }
}

#[test]
fn expert_products_agree_with_the_oracle_and_with_single_products() {
    let golden = Golden::open("gather_qmm");
    for case in golden.cases() {
        let key = case["key"].as_str().unwrap();
        let number = |name: &str| case[name].as_u64().unwrap() as usize;
        let (experts, out, inp, top_k) = (number("experts"), number("n"), number("k"), number("top_k"));
        let (layout, packed) = oracle(&golden, case, LinearShape { experts, out, inp });
        let matrix = Matrix::new(layout, &packed).unwrap();
        let (x, want) = (golden.f32(&format!("{key}.x")), golden.f32(&format!("{key}.y")));
        let chosen = golden.words(&format!("{key}.experts"));
        let mut order: Vec<u32> = (0..chosen.len() as u32).collect();
        order.sort_by_key(|slot| chosen[*slot as usize]);
        let offsets: Vec<u32> =
            (0..=experts as u32).map(|e| chosen.iter().filter(|c| **c < e).count() as u32).collect();
        let repeated: Vec<f32> = x.chunks(inp).flat_map(|row| row.repeat(top_k)).collect();
        for isa in Isa::all_available() {
            let q = Quantised::new(isa, &x, inp, layout.block());
            let token = SlotInput::Token { top_k: top_k as u32 };
            let run = |input, from| {
                let mut y = vec![f32::NAN; chosen.len() * out];
                for panel in 0..layout.panels() {
                    let columns = panel * LANES..out.min((panel + 1) * LANES);
                    let mut tile = Tile::from_slice(&mut y, out, columns);
                    let routing = Routing { offsets: &offsets, order: &order, input: from };
                    multiply_experts(
                        isa,
                        matrix,
                        input,
                        routing,
                        panel..panel + 1,
                        &mut tile,
                        Epilogue::default(),
                    )
                    .unwrap();
                }
                y
            };
            let y = run(Input::F32 { x: &x, stride: inp }, token);
            assert_close(&y, &want, 2e-4, &format!("{key} {isa:?}"));
            assert_eq!(run(Input::F32 { x: &repeated, stride: inp }, SlotInput::Slot), y, "{key} {isa:?}");
            let int8 = run(Input::Int8(q.rows()), token);
            assert_close(&int8, &want, 0.2, &format!("{key} {isa:?} int8"));
            for (slot, y) in int8.chunks(out).enumerate() {
                let expert = chosen[slot] as usize;
                let one = LinearLayout::new(
                    layout.encoding(),
                    LinearShape::new(out, inp),
                    layout.group(),
                    layout.scale_type(),
                );
                let packed = &packed[expert * one.clone().unwrap().bytes()..][..one.clone().unwrap().bytes()];
                let token = slot / top_k;
                let alone = Quantised::new(isa, &x[token * inp..(token + 1) * inp], inp, layout.block());
                let single =
                    tiled(isa, Matrix::new(one.unwrap(), packed).unwrap(), Input::Int8(alone.rows()), 1, 9);
                assert_eq!(single, y, "{key} {isa:?} slot {slot}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let affine = |bits, group, inp| {
        LinearLayout::new(Encoding::Affine { bits }, LinearShape::new(8, inp), group, ScaleType::Bf16)
    };
    assert!(affine(7, 64, 64).unwrap_err().to_string().contains("bits is 7"));
    assert!(affine(4, 48, 96).unwrap_err().to_string().contains("group_size is 48"));
    assert!(affine(4, 64, 96).unwrap_err().to_string().contains("96 inputs"));
    assert!(LinearLayout::plain(Encoding::F32, LinearShape::new(usize::MAX, 8)).is_err());
    let layout = affine(4, 64, 128).unwrap();
    let short = Source { weights: &[0; 511], scales: None, biases: None };
    assert!(
        pack(&layout, &short, 0..1, &mut vec![0; layout.bytes()]).unwrap_err().to_string().contains("512")
    );
    let packed = vec![0; layout.bytes()];
    assert!(Matrix::new(layout, &packed[1..]).is_err());
    let matrix = Matrix::new(layout, &packed).unwrap();
    let x = [0.0; 128];
    let mut y = [0.0; 8];
    let mut run = |x: Input<'_>, rows, panels, columns| {
        multiply(
            Isa::detect(),
            matrix,
            x,
            rows,
            panels,
            &mut Tile::from_slice(&mut y, 8, columns),
            Epilogue::default(),
        )
    };
    assert!(run(Input::F32 { x: &x, stride: 128 }, 0..1, 0..1, 0..8).is_ok());
    assert!(run(Input::F32 { x: &x[1..], stride: 128 }, 0..1, 0..1, 0..8).is_err());
    assert!(run(Input::F32 { x: &x, stride: 64 }, 0..1, 0..1, 0..8).is_err());
    assert!(run(Input::F32 { x: &x, stride: 128 }, 0..2, 0..1, 0..8).is_err());
    assert!(run(Input::F32 { x: &x, stride: 128 }, 0..1, 0..2, 0..8).is_err());
    assert!(run(Input::F32 { x: &x, stride: 128 }, 0..1, 0..1, 0..7).is_err());
    let empty = Int8Rows { codes: &[], scales: &[], sums: &[] };
    assert!(run(Input::Int8(empty), 0..1, 0..1, 0..8).is_err());
}
