//! RMS norm, to f32 and to int8.

use bessemer_kernels::Activations;
use bessemer_kernels::rms_norm::RmsNorm;
use rand::Rng;
use rand::rngs::SmallRng;

use super::int8::Codes;
use crate::data::{floats, one_of};
use crate::{Check, Outcome, Side, Tolerance, Twin, compare};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "to_f32", run: to_f32 },
    Check { name: "to_int8", run: to_int8 },
    Check { name: "long_rows", run: long_rows },
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
        x: x.on(side),
        weight: weight.on(side),
        out: Activations::F32(out.on(side)),
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
        x: x.on(side),
        weight: weight.on(side),
        out: Activations::Int8(out.on(side)),
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

/// A row alone and the same row in a crowd.
fn rows_keep_their_bits(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, dim, at) = (9, 4 * rng.random_range(30..1500), rng.random_range(0..9));
    let x = rows_of(rng, rows, dim);
    let weight = twin.put(&floats(rng, dim))?;
    let normed = |x: &[f32]| {
        let rows = x.len() / dim;
        let (x, out) = (twin.put(x)?, twin.rubbish::<f32>(x.len())?);
        let (x, weight, y) = (x.on(Side::Device), weight.on(Side::Device), out.on(Side::Device));
        let op = RmsNorm { x, weight, out: Activations::F32(y), rows, dim, eps: 1e-6 };
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
