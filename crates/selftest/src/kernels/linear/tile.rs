//! Products of many rows: several tiles with ragged edges, sums so long that they are split, experts with many rows and with
//! none.
//!
//! Devices with matrix units round factors to f16 here: 11 bits, so that errors stay below 2⁻¹⁰ of the magnitudes of all
//! terms, and by chance far below; see `CLOSE_HALF` in the parent.

use std::ops::Range;

use bessemer_kernels::linear::{Encoding, Linear, SlotInput, Write};
use rand::Rng;
use rand::rngs::SmallRng;

use super::sample::{ENCODINGS, Form, Rows, Sample};
use super::{close, product, routed, tolerance};
use crate::data::{floats, one_of, permutation};
use crate::{Check, Failure, Outcome, Side, Twin, equal};

pub(in crate::kernels) const CHECKS: &[Check] = &[
    Check { name: "ragged_tiles", run: ragged_tiles },
    Check { name: "long_sums", run: long_sums },
    Check { name: "every_form", run: every_form },
    Check { name: "rows_of_all_magnitudes", run: rows_of_all_magnitudes },
    Check { name: "rows_are_apart", run: rows_are_apart },
    Check { name: "what_is_not_finite_stays_in_its_row", run: not_finite },
    Check { name: "one_expert_has_it_all", run: one_expert_has_it_all },
    Check { name: "skewed_experts", run: skewed_experts },
    Check { name: "more_experts_than_threads", run: more_experts_than_threads },
];

/// A matrix, or a stack of them, with outputs and inputs (in groups) drawn.
fn draw(
    twin: &Twin,
    rng: &mut SmallRng,
    encoding: Encoding,
    experts: usize,
    [outputs, steps]: [Range<usize>; 2],
) -> Result<Sample, Failure> {
    let shape = (experts, rng.random_range(outputs), rng.random_range(steps));
    Sample::draw(twin, rng, encoding, shape)
}

/// One of the forms that a matrix takes.
fn any_form(rng: &mut SmallRng, sample: &Sample) -> Form {
    one_of(rng, Form::of(&sample.layout))
}

fn ragged_tiles(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in ENCODINGS {
        let sample = draw(twin, rng, encoding, 1, [1..300, 1..4])?;
        let form = any_form(rng, &sample);
        let rows = rng.random_range(17..=300);
        product(twin, rng, &sample, form, rows)?;
    }
    Ok(())
}

fn long_sums(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let plain = one_of(rng, &ENCODINGS[..3]);
    let sample = draw(twin, rng, plain, 1, [1..30, 1000..3000])?;
    product(twin, rng, &sample, Form::F32, 20)?;
    for encoding in [one_of(rng, &ENCODINGS[3..]), Encoding::Affine { bits: 4 }] {
        let sample = draw(twin, rng, encoding, 1, [1..50, 30..60])?;
        let form = any_form(rng, &sample);
        let rows = rng.random_range(17..=40);
        product(twin, rng, &sample, form, rows)?;
    }
    Ok(())
}

fn every_form(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in ENCODINGS {
        let sample = draw(twin, rng, encoding, 1, [1..40, 1..7])?;
        for &form in Form::of(&sample.layout) {
            product(twin, rng, &sample, form, 17)?;
        }
    }
    Ok(())
}

/// Each row is as exact as its own numbers allow: huge ones do not leave the range of f16, tiny ones do not vanish in it.
fn rows_of_all_magnitudes(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in [one_of(rng, &ENCODINGS[..3]), Encoding::Affine { bits: 4 }, one_of(rng, &ENCODINGS[3..])]
    {
        let sample = draw(twin, rng, encoding, 1, [1..40, 1..4])?;
        let (out, inp, rows) = (sample.layout.out(), sample.layout.inp(), rng.random_range(17..80));
        let form = any_form(rng, &sample);
        let mut x = floats(rng, rows * inp);
        for x in x.chunks_exact_mut(inp) {
            let magnitude = 10.0_f32.powi(rng.random_range(-20..=20));
            x.iter_mut().for_each(|x| *x *= magnitude);
        }
        x[..inp].fill(0.0);
        let activations = Rows::new(twin, &x, &sample.layout, form)?;
        let y = twin.rubbish::<f32>(rows * out)?;
        twin.run(|side| Linear {
            x: activations.on(side),
            weights: sample.on(side),
            out: y.on(side),
            rows,
            write: Write::Store,
        })?;
        let magnitudes: Vec<f32> = x.chunks(inp).flat_map(|x| sample.magnitudes(0, x)).collect();
        let scaled: Vec<f32> = magnitudes.iter().map(|m| m.max(1e-25)).collect();
        let what = format!("{rows} rows of all magnitudes, {form:?} times {}", sample.describe());
        close(twin, &what, &y, &scaled, tolerance(twin, rows))?;
    }
    Ok(())
}

/// Rows in another order give the same rows of results, bit for bit, in that order.
fn rows_are_apart(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let encoding = one_of(rng, &ENCODINGS);
    let sample = draw(twin, rng, encoding, 1, [1..100, 1..10])?;
    let (out, inp, rows) = (sample.layout.out(), sample.layout.inp(), rng.random_range(17..200));
    let x = floats(rng, rows * inp);
    let order = permutation(rng, rows);
    let shuffled: Vec<f32> =
        order.iter().flat_map(|&row| x[row as usize * inp..][..inp].iter().copied()).collect();
    let form = any_form(rng, &sample);
    let run = |x: &[f32]| {
        let x = Rows::new(twin, x, &sample.layout, form)?;
        let y = twin.rubbish::<f32>(rows * out)?;
        let op = Linear {
            x: x.on(Side::Device),
            weights: sample.on(Side::Device),
            out: y.on(Side::Device),
            rows,
            write: Write::Store,
        };
        twin.run_on(Side::Device, &op)?;
        twin.get::<u32>(Side::Device, &y)
    };
    let (one, other) = (run(&x)?, run(&shuffled)?);
    let expected: Vec<u32> =
        order.iter().flat_map(|&row| one[row as usize * out..][..out].iter().copied()).collect();
    equal(&format!("{rows} rows in another order, {form:?} times {}", sample.describe()), &expected, &other)
}

fn not_finite(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in [Encoding::Bf16, Encoding::Affine { bits: 4 }] {
        let sample = draw(twin, rng, encoding, 1, [1..40, 1..4])?;
        let (out, inp, rows) = (sample.layout.out(), sample.layout.inp(), rng.random_range(17..100));
        let form = any_form(rng, &sample);
        let bad = rng.random_range(0..rows);
        let mut x = floats(rng, rows * inp);
        x[bad * inp + rng.random_range(0..inp)] = one_of(rng, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        let x = Rows::new(twin, &x, &sample.layout, form)?;
        let y = twin.rubbish::<f32>(rows * out)?;
        let op = Linear {
            x: x.on(Side::Device),
            weights: sample.on(Side::Device),
            out: y.on(Side::Device),
            rows,
            write: Write::Store,
        };
        twin.run_on(Side::Device, &op)?;
        for (row, y) in twin.get::<f32>(Side::Device, &y)?.chunks(out).enumerate() {
            if let Some(at) = y.iter().position(|y| y.is_finite() == (row == bad)) {
                return Err(Failure::wrong(format!(
                    "row {row} of {rows}, row {bad} is not finite, {form:?}, {}: [{at}] is {:e}",
                    sample.describe(),
                    y[at]
                )));
            }
        }
    }
    Ok(())
}

fn one_expert_has_it_all(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in [one_of(rng, &ENCODINGS[..3]), Encoding::Affine { bits: 4 }, one_of(rng, &ENCODINGS[3..])]
    {
        let count = rng.random_range(1..12);
        let sample = draw(twin, rng, encoding, count, [1..150, 1..4])?;
        let form = any_form(rng, &sample);
        let chosen = vec![rng.random_range(0..count as u32); rng.random_range(17..=300)];
        routed(twin, rng, &sample, form, SlotInput::Slot, &chosen)?;
    }
    Ok(())
}

/// Most slots on few experts, some experts without any, some slots without one.
fn skewed_experts(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in ENCODINGS {
        let count = rng.random_range(3..20);
        let sample = draw(twin, rng, encoding, count, [1..80, 1..4])?;
        let form = any_form(rng, &sample);
        let top_k = rng.random_range(1..=3);
        let slots = rng.random_range(10..70) * top_k;
        let favourite = rng.random_range(0..count as u32);
        let chosen: Vec<u32> = (0..slots)
            .map(|_| match rng.random_range(0..20) {
                0 => u32::MAX,
                1..8 => rng.random_range(0..count as u32 / 2),
                _ => favourite,
            })
            .collect();
        let input = SlotInput::Token { top_k: top_k as u32 };
        routed(twin, rng, &sample, form, input, &chosen)?;
    }
    Ok(())
}

fn more_experts_than_threads(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let count = rng.random_range(257..700);
    let encoding = one_of(rng, &[Encoding::Bf16, Encoding::Affine { bits: 4 }]);
    let sample = draw(twin, rng, encoding, count, [1..20, 1..2])?;
    let form = any_form(rng, &sample);
    let chosen: Vec<u32> =
        (0..rng.random_range(300..900)).map(|_| rng.random_range(0..count as u32)).collect();
    routed(twin, rng, &sample, form, SlotInput::Slot, &chosen)
}
