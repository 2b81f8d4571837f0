//! RMS norm, to f32 and to int8.

use bessemer_kernels::Activations;
use bessemer_kernels::rms_norm::{NormInput, NormOutput, RmsNorm};
use bessemer_kernels::router::Combine;
use rand::Rng;
use rand::rngs::SmallRng;

use super::int8::Codes;
use crate::data::{floats, one_of};
use crate::{Both, Check, Failure, Outcome, Side, Tolerance, Twin, compare};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "to_f32", run: to_f32 },
    Check { name: "to_int8", run: to_int8 },
    Check { name: "long_rows", run: long_rows },
    Check { name: "to_both", run: to_both },
    Check { name: "to_two_terms", run: to_two_terms },
    Check { name: "combined_first", run: combined_first },
    Check { name: "rows_keep_their_bits", run: rows_keep_their_bits },
    Check { name: "what_is_not_finite_stays_in_its_row", run: not_finite },
];

/// Sums of squares in another order.
const CLOSE: Tolerance = Tolerance::new(1e-30, 1e-5);

/// Rows of very different size.
fn rows_of(rng: &mut SmallRng, rows: usize, dim: usize) -> Vec<f32> {
    let mut x = floats(rng, rows * dim);
    for row in x.chunks_exact_mut(dim) {
        let size = one_of(rng, &[1.0, 1.0, 1e-3, 30.0, 1e-12, 1e12, 0.0]);
        row.iter_mut().for_each(|x| *x *= size);
    }
    x
}

fn f32_rows(twin: &Twin, rng: &mut SmallRng, x: &[f32], dim: usize) -> Outcome {
    let rows = x.len() / dim;
    let (x, weight) = (twin.put(x)?, twin.put(&floats(rng, dim))?);
    let out = twin.rubbish::<f32>(rows * dim)?;
    let eps = one_of(rng, &[1e-6, 1e-5]);
    twin.run(|side| RmsNorm {
        x: NormInput::Given(x.on(side)),
        weight: weight.on(side),
        out: Activations::F32(out.on(side)).into(),
        rows,
        dim,
        eps,
    })?;
    compare(&format!("{rows}×{dim}"), &twin.get(Side::Cpu, &out)?, &twin.get(Side::Device, &out)?, CLOSE)
}

fn int8_rows(twin: &Twin, rng: &mut SmallRng, x: &[f32], dim: usize, group: usize) -> Outcome {
    let rows = x.len() / dim;
    let (x, weight) = (twin.put(x)?, twin.put(&floats(rng, dim))?);
    let out = Codes::new(twin, rows, dim, group)?;
    twin.run(|side| RmsNorm {
        x: NormInput::Given(x.on(side)),
        weight: weight.on(side),
        out: Activations::Int8(out.on(side)).into(),
        rows,
        dim,
        eps: 1e-6,
    })?;
    out.compare(&format!("{rows}×{dim} in groups of {group}"), twin)
}

fn to_f32(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for dim in [4 * rng.random_range(1..900), rng.random_range(1..700), one_of(rng, &[1024, 2048, 2052])] {
        let rows = rng.random_range(1..=70);
        let x = rows_of(rng, rows, dim);
        f32_rows(twin, rng, &x, dim)?;
    }
    Ok(())
}

fn to_int8(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for group in [32, 64] {
        for dim in [group * rng.random_range(1..70), one_of(rng, &[1024, 2048, 2560, 4096, 5120])] {
            let rows = rng.random_range(1..=70);
            let x = rows_of(rng, rows, dim);
            int8_rows(twin, rng, &x, dim, group)?;
        }
    }
    Ok(())
}

/// Rows that fill the largest variant, and rows that none holds.
fn long_rows(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for dim in [8192 - 64 * rng.random_range(0..40), 8192 + 64 * rng.random_range(1..80)] {
        let x = rows_of(rng, 3, dim);
        f32_rows(twin, rng, &x, dim)?;
        int8_rows(twin, rng, &x, dim, 64)?;
    }
    Ok(())
}

/// Widths of rows that one launch takes, and one that none takes.
fn width(rng: &mut SmallRng) -> usize {
    let [any, long] = [64 * rng.random_range(1..100), 8192 + 64 * rng.random_range(1..20)];
    one_of(rng, &[any, any, 2048, 4096, 5120, long])
}

fn to_both(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, dim, group) = (rng.random_range(1..=40), width(rng), one_of(rng, &[32, 64]));
    let x = twin.put(&rows_of(rng, rows, dim))?;
    let norm = Norm::new(twin, rng, rows, dim)?;
    norm.both(twin, |side| NormInput::Given(x.on(side)), group)
}

fn to_two_terms(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, dim, group) = (rng.random_range(1..=40), width(rng), one_of(rng, &[32, 64]));
    let x = twin.put(&floats(rng, rows * dim))?;
    let norm = Norm::new(twin, rng, rows, dim)?;
    norm.two_terms(twin, |side| NormInput::Given(x.on(side)), group)
}

/// Rows to which the results of experts are added first: what is left in them, and every form of their norm.
fn combined_first(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for _ in 0..3 {
        let (rows, dim, group) = (rng.random_range(1..=30), width(rng), one_of(rng, &[32, 64]));
        let top_k = rng.random_range(1..=9);
        let before = floats(rng, rows * dim);
        let (y, weights) =
            (twin.put(&floats(rng, rows * top_k * dim))?, twin.put(&floats(rng, rows * top_k))?);
        let norm = Norm::new(twin, rng, rows, dim)?;
        let combined = |x: &Both, side| {
            let (y, weights, out) = (y.on(side), weights.on(side), x.on(side));
            NormInput::Combined(Combine { y, weights, out, rows, top_k, dim })
        };
        // Each run adds to rows of its own.
        let x = [twin.put(&before)?, twin.put(&before)?, twin.put(&before)?];
        norm.plain(twin, |side| combined(&x[0], side))?;
        norm.both(twin, |side| combined(&x[1], side), group)?;
        norm.two_terms(twin, |side| combined(&x[2], side), group)?;
        for x in &x {
            let (want, got) = (twin.get(Side::Cpu, x)?, twin.get(Side::Device, x)?);
            let what = format!("sums of {top_k}, {rows}×{dim}");
            compare(&what, &want, &got, Tolerance::new(1e-5, 1e-6))?;
        }
    }
    Ok(())
}

/// A norm whose rows and forms are still open.
struct Norm {
    weight: Both,
    rows: usize,
    dim: usize,
}

impl Norm {
    fn new(twin: &Twin, rng: &mut SmallRng, rows: usize, dim: usize) -> Result<Self, Failure> {
        // No weight near zero: what is compared below is relative.
        let weights: Vec<f32> = floats(rng, dim).iter().map(|w| 0.5 + w.abs()).collect();
        Ok(Self { weight: twin.put(&weights)?, rows, dim })
    }

    fn run(&self, twin: &Twin, x: impl Fn(Side) -> NormInput, out: impl Fn(Side) -> NormOutput) -> Outcome {
        let (rows, dim) = (self.rows, self.dim);
        let op = |side| {
            let weight = self.weight.on(side);
            RmsNorm { x: x(side), weight, out: out(side), rows, dim, eps: 1e-6 }
        };
        Ok(twin.run(op)?)
    }

    fn plain(&self, twin: &Twin, x: impl Fn(Side) -> NormInput) -> Outcome {
        let out = twin.rubbish::<f32>(self.rows * self.dim)?;
        self.run(twin, x, |side| Activations::F32(out.on(side)).into())?;
        let (want, got) = (twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
        compare(&format!("{}×{}", self.rows, self.dim), &want, &got, Tolerance::new(1e-4, 1e-5))
    }

    fn both(&self, twin: &Twin, x: impl Fn(Side) -> NormInput, group: usize) -> Outcome {
        let plain = twin.rubbish::<f32>(self.rows * self.dim)?;
        let out = Codes::new(twin, self.rows, self.dim, group)?;
        self.run(twin, x, |side| NormOutput::Both { f32: plain.on(side), int8: out.on(side) })?;
        let what = format!("{}×{} in both forms, groups of {group}", self.rows, self.dim);
        let (want, got) = (twin.get(Side::Cpu, &plain)?, twin.get(Side::Device, &plain)?);
        compare(&what, &want, &got, Tolerance::new(1e-4, 1e-5))?;
        out.compare(&what, twin)
    }

    fn two_terms(&self, twin: &Twin, x: impl Fn(Side) -> NormInput, group: usize) -> Outcome {
        let out = Codes::new(twin, 2 * self.rows, self.dim, group)?;
        self.run(twin, x, |side| Activations::Int8x2(out.on(side)).into())?;
        out.compare_two_terms(&format!("{}×{} in two terms, groups of {group}", self.rows, self.dim), twin)
    }
}

/// A row alone and the same row in a crowd.
fn rows_keep_their_bits(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, dim, at) = (9, 4 * rng.random_range(30..1500), rng.random_range(0..9));
    let x = rows_of(rng, rows, dim);
    let weight = twin.put(&floats(rng, dim))?;
    let normed = |x: &[f32]| {
        let rows = x.len() / dim;
        let (x, out) = (twin.put(x)?, twin.rubbish::<f32>(x.len())?);
        let (x, weight, y) = (x.on(Side::Device), weight.on(Side::Device), out.on(Side::Device));
        let (x, out_rows) = (NormInput::Given(x), Activations::F32(y).into());
        let op = RmsNorm { x, weight, out: out_rows, rows, dim, eps: 1e-6 };
        twin.run_on(Side::Device, &op)?;
        twin.get::<u32>(Side::Device, &out)
    };
    let (all, alone) = (normed(&x)?, normed(&x[at * dim..(at + 1) * dim])?);
    crate::equal(&format!("row {at} of {rows}×{dim}"), &alone, &all[at * dim..(at + 1) * dim])
}

fn not_finite(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, dim) = (8, 64 * rng.random_range(1..40));
    let mut x = floats(rng, rows * dim);
    for (row, bad) in [(1, f32::NAN), (3, f32::INFINITY), (4, f32::NEG_INFINITY), (6, 1e30)] {
        x[row * dim + rng.random_range(0..dim)] = bad;
    }
    f32_rows(twin, rng, &x, dim)?;
    int8_rows(twin, rng, &x, dim, 64)
}
