//! Matrix products: every encoding with every form of activations, in shapes that leave edges everywhere.

pub(super) mod embedding;
pub(super) mod expert_layer;
pub(super) mod normed;
mod sample;
pub(super) mod tile;

use bessemer_kernels::linear::{Encoding, Experts, Linear, SlotInput, SlotOrder, Write};
use rand::Rng;
use rand::rngs::SmallRng;

use self::sample::{ENCODINGS, Form, Rows, Sample};
use crate::data::{floats, one_of};
use crate::{Both, Check, Failure, Outcome, Side, Tolerance, Twin, compare, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "one_row", run: one_row },
    Check { name: "few_rows", run: few_rows },
    Check { name: "many_rows", run: many_rows },
    Check { name: "many_inputs", run: many_inputs },
    Check { name: "rows_keep_their_bits", run: rows_keep_their_bits },
    Check { name: "experts_of_one_token", run: experts_of_one_token },
    Check { name: "experts_of_few_tokens", run: experts_of_few_tokens },
    Check { name: "experts_of_many_tokens", run: experts_of_many_tokens },
    Check { name: "experts_in_order", run: experts_in_order },
    Check { name: "what_is_not_finite_stays_in_its_row", run: not_finite },
];

/// Errors as a share of the magnitudes of all terms. Sums of f32 in any order stay far below it.
const CLOSE: Tolerance = Tolerance::new(1e-5, 0.0);
/// Where a device multiplies many rows on units that take f16.
const CLOSE_HALF: Tolerance = Tolerance::new(2e-3, 0.0);

fn one_row(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    every_encoding(twin, rng, |rng| (1, rng.random_range(1..80), rng.random_range(1..12)))
}

fn few_rows(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    every_encoding(twin, rng, |rng| {
        (rng.random_range(2..=16), rng.random_range(1..50), rng.random_range(1..7))
    })
}

fn many_rows(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    every_encoding(twin, rng, |rng| {
        (rng.random_range(17..90), rng.random_range(1..150), rng.random_range(1..5))
    })
}

/// More inputs than the threads of a workgroup take at once, and so many that plain weights go round as well.
fn many_inputs(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    every_encoding(twin, rng, |rng| {
        (rng.random_range(1..=3), rng.random_range(1..20), rng.random_range(30..100))
    })?;
    let encoding = one_of(rng, &[Encoding::F32, Encoding::F16, Encoding::Bf16]);
    let inputs = rng.random_range(600..3000);
    let sample = Sample::draw(twin, rng, encoding, (1, 33, inputs))?;
    product(twin, rng, &sample, Form::F32, 2)
}

/// Draws rows, outputs and inputs (in groups) for each encoding and form.
fn every_encoding(
    twin: &Twin,
    rng: &mut SmallRng,
    shape: impl Fn(&mut SmallRng) -> (usize, usize, usize),
) -> Outcome {
    for encoding in ENCODINGS {
        let (rows, out, steps) = shape(rng);
        let sample = Sample::draw(twin, rng, encoding, (1, out, steps))?;
        for &form in Form::of(&sample.layout) {
            product(twin, rng, &sample, form, rows)?;
        }
    }
    Ok(())
}

fn product(twin: &Twin, rng: &mut SmallRng, sample: &Sample, form: Form, rows: usize) -> Outcome {
    let (out, inp) = (sample.layout.out(), sample.layout.inp());
    let x = floats(rng, rows * inp);
    let activations = Rows::new(twin, &x, &sample.layout, form)?;
    let write = if rng.random() { Write::Add } else { Write::Store };
    let before = floats(rng, rows * out);
    let y = twin.put(&before)?;
    twin.run(|side| Linear {
        x: activations.on(side),
        weights: sample.on(side),
        out: y.on(side),
        rows,
        write,
    })?;
    let terms = x.chunks(inp).flat_map(|x| sample.magnitudes(0, x));
    let joined = |before: &f32| if write == Write::Add { before.abs() } else { 0.0 };
    let magnitudes: Vec<f32> = terms.zip(&before).map(|(m, before)| m + joined(before)).collect();
    let what = format!("{rows} rows of {form:?} times {}, {write:?}", sample.describe());
    close(twin, &what, &y, &magnitudes, tolerance(twin, rows))
}

/// Many rows may take matrix units, which round factors to f16.
fn tolerance(twin: &Twin, rows: usize) -> Tolerance {
    let units = twin.gpu().is_some_and(|limits| limits.cooperative_matrix);
    if units && rows > 16 { CLOSE_HALF } else { CLOSE }
}

/// Compares after dividing by the magnitudes.
fn close(twin: &Twin, what: &str, y: &Both, magnitudes: &[f32], tolerance: Tolerance) -> Outcome {
    let scaled = |side| {
        let values = twin.get::<f32>(side, y)?;
        Ok::<Vec<f32>, Failure>(values.iter().zip(magnitudes).map(|(v, m)| v / m.max(1e-6)).collect())
    };
    compare(what, &scaled(Side::Cpu)?, &scaled(Side::Device)?, tolerance)
}

/// A row alone and among others, up to sixteen: bit for bit the same on the device.
fn rows_keep_their_bits(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in [one_of(rng, &ENCODINGS[..3]), one_of(rng, &ENCODINGS[3..]), Encoding::Affine { bits: 4 }]
    {
        let shape = (1, rng.random_range(1..70), rng.random_range(1..40));
        let sample = Sample::draw(twin, rng, encoding, shape)?;
        let (out, inp) = (sample.layout.out(), sample.layout.inp());
        let x = floats(rng, 16 * inp);
        for &form in Form::of(&sample.layout) {
            let run = |first: usize, rows: usize| {
                let x = Rows::new(twin, &x[first * inp..(first + rows) * inp], &sample.layout, form)?;
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
            let together = run(0, 16)?;
            for rows in [1, 2, 3, 5] {
                let first = rng.random_range(0..=16 - rows);
                let what = format!("rows {first}+{rows} of 16, {form:?} times {}", sample.describe());
                equal(&what, &together[first * out..(first + rows) * out], &run(first, rows)?)?;
            }
        }
    }
    Ok(())
}

fn experts_of_one_token(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    experts(twin, rng, |_| 1)
}

fn experts_of_few_tokens(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    experts(twin, rng, |rng| rng.random_range(2..=16))
}

fn experts_of_many_tokens(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    experts(twin, rng, |rng| rng.random_range(17..70))
}

/// So many slots that they are sorted, over so many experts that each has few.
fn experts_in_order(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let count = rng.random_range(40..60);
    let encoding = one_of(rng, &ENCODINGS);
    let shape = (count, rng.random_range(1..40), 1);
    let sample = Sample::draw(twin, rng, encoding, shape)?;
    for &form in Form::of(&sample.layout) {
        let (tokens, top_k) = (rng.random_range(33..=39), 4);
        let input = one_of(rng, &[SlotInput::Token { top_k: top_k as u32 }, SlotInput::Slot]);
        let ids: Vec<u32> = (0..tokens * top_k).map(|_| rng.random_range(0..count as u32)).collect();
        routed(twin, rng, &sample, form, input, &ids)?;
    }
    Ok(())
}

fn experts(twin: &Twin, rng: &mut SmallRng, tokens: impl Fn(&mut SmallRng) -> usize) -> Outcome {
    for encoding in ENCODINGS {
        let count = rng.random_range(2..9);
        let shape = (count, rng.random_range(1..40), rng.random_range(1..5));
        let sample = Sample::draw(twin, rng, encoding, shape)?;
        for &form in Form::of(&sample.layout) {
            let (tokens, top_k) = (tokens(rng), rng.random_range(1..=count));
            let slots = tokens * top_k;
            let token_rows = rng.random();
            let input = if token_rows { SlotInput::Token { top_k: top_k as u32 } } else { SlotInput::Slot };
            // Some experts have no slot; now and then a slot has no expert, and keeps its row.
            let ids: Vec<u32> = (0..slots)
                .map(|_| match rng.random_range(0..30) {
                    0 => u32::MAX,
                    _ => rng.random_range(0..count as u32),
                })
                .collect();
            routed(twin, rng, &sample, form, input, &ids)?;
        }
    }
    Ok(())
}

fn routed(
    twin: &Twin,
    rng: &mut SmallRng,
    sample: &Sample,
    form: Form,
    input: SlotInput,
    chosen: &[u32],
) -> Outcome {
    let (experts, out, inp) = (sample.layout.experts(), sample.layout.out(), sample.layout.inp());
    let slots = chosen.len();
    let row_of = |slot: usize| match input {
        SlotInput::Token { top_k } => slot / top_k as usize,
        SlotInput::Slot => slot,
    };
    let x = floats(rng, (row_of(slots - 1) + 1) * inp);
    let activations = Rows::new(twin, &x, &sample.layout, form)?;
    let mut order: Vec<u32> = (0..slots as u32).collect();
    order.sort_by_key(|slot| chosen[*slot as usize]);
    let below = |expert: usize| chosen.iter().filter(|id| (**id as usize) < expert).count() as u32;
    let offsets: Vec<u32> = (0..=experts).map(below).collect();
    let (ids, offsets, order) = (twin.put(chosen)?, twin.put(&offsets)?, twin.put(&order)?);
    let order = |side: Side| {
        let reads = Experts::reads_order(slots, experts, twin.catalog(side).gpu());
        reads.then(|| SlotOrder { offsets: offsets.on(side), order: order.on(side) })
    };
    let y = twin.put(&floats(rng, slots * out))?;
    twin.run(|side| Experts {
        x: activations.on(side),
        weights: sample.on(side),
        ids: ids.on(side),
        order: order(side),
        input,
        out: y.on(side),
        slots,
    })?;
    let magnitudes = (0..slots).flat_map(|slot| {
        let x = &x[row_of(slot) * inp..][..inp];
        let expert = (chosen[slot] as usize).min(experts - 1);
        sample.magnitudes(expert, x)
    });
    let what = format!("{slots} slots, {input:?}, {form:?} times {}", sample.describe());
    close(twin, &what, &y, &magnitudes.collect::<Vec<_>>(), tolerance(twin, slots))
}

/// A NaN or an infinity in one row shows in that row and in no other.
fn not_finite(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in [Encoding::Bf16, Encoding::Affine { bits: 4 }, Encoding::Affine { bits: 8 }] {
        let shape = (1, rng.random_range(1..40), rng.random_range(1..5));
        let sample = Sample::draw(twin, rng, encoding, shape)?;
        let (out, inp) = (sample.layout.out(), sample.layout.inp());
        for &form in Form::of(&sample.layout) {
            let rows = rng.random_range(2..=9);
            let (bad, good) = (rng.random_range(0..rows), floats(rng, rows * inp));
            let mut x = good.clone();
            x[bad * inp + rng.random_range(0..inp)] = one_of(rng, &[f32::NAN, f32::INFINITY]);
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
                twin.get::<f32>(Side::Device, &y)
            };
            let (clean, y) = (run(&good)?, run(&x)?);
            for (row, (y, clean)) in y.chunks(out).zip(clean.chunks(out)).enumerate() {
                let what =
                    format!("row {row} of {rows}, row {bad} is not finite, {form:?}, {}", sample.describe());
                if row == bad {
                    if let Some(at) = y.iter().position(|y| y.is_finite()) {
                        return Err(Failure::wrong(format!(
                            "{what}: [{at}] is {:e}, a finite number",
                            y[at]
                        )));
                    }
                } else {
                    equal(&what, clean, y)?;
                }
            }
        }
    }
    Ok(())
}
