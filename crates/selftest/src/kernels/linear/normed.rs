//! The product of a row that is normalised on the way: what a norm and a product give, to the bit.

use bessemer_kernels::linear::{Encoding, Linear, NormedForm, NormedLinear, Write};
use bessemer_kernels::rms_norm::{NormInput, NormOutput, RmsNorm};
use bessemer_kernels::{Activations, QuantisedRows};
use rand::Rng;
use rand::rngs::SmallRng;

use super::close;
use super::sample::{Form, Sample, quantised};
use crate::data::{floats, one_of};
use crate::kernels::int8::Codes;
use crate::{Check, Outcome, Side, Tolerance, Twin, equal};

pub(crate) const CHECKS: &[Check] = &[
    Check { name: "short_rows", run: short_rows },
    Check { name: "rows_that_fill_a_workgroup", run: long_rows },
];

/// What a code may count that falls to the other side on the other device, as a share of the magnitudes of all terms.
fn tolerance(form: Form) -> Tolerance {
    match form {
        Form::F32 => Tolerance::new(3e-5, 0.0),
        Form::Int8x2 => Tolerance::new(1e-4, 0.0),
        Form::Int8 => Tolerance::new(1e-2, 0.0),
    }
}

fn short_rows(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in quantised() {
        let (out, steps) = (rng.random_range(1..80), rng.random_range(1..12));
        every_form(twin, rng, encoding, (out, steps))?;
    }
    Ok(())
}

fn long_rows(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let encoding = Encoding::Affine { bits: one_of(rng, &[2, 3, 4, 5, 6, 8]) };
    let out = rng.random_range(1..40);
    every_form(twin, rng, encoding, (out, 32))
}

fn every_form(twin: &Twin, rng: &mut SmallRng, encoding: Encoding, (out, steps): (usize, usize)) -> Outcome {
    let sample = Sample::draw_narrow(twin, rng, encoding, (1, out, steps))?;
    for form in [Form::F32, Form::Int8, Form::Int8x2] {
        one(twin, rng, &sample, form)?;
    }
    Ok(())
}

fn one(twin: &Twin, rng: &mut SmallRng, sample: &Sample, form: Form) -> Outcome {
    let (out, inp) = (sample.layout.out(), sample.layout.inp());
    let size = one_of(rng, &[1.0, 1e-3, 30.0]);
    let x: Vec<f32> = floats(rng, inp).into_iter().map(|x| x * size).collect();
    let weight = floats(rng, inp);
    let (row, norm, eps) = (twin.put(&x)?, twin.put(&weight)?, one_of(rng, &[1e-6, 1e-5]));
    let (y, apart) = (twin.rubbish::<f32>(out)?, twin.rubbish::<f32>(out)?);
    // What goes out beside f32 has groups of its own.
    let group = if form == Form::F32 && inp.is_multiple_of(64) { 64 } else { sample.layout.block() };
    let terms = if form == Form::Int8x2 { 2 } else { 1 };
    let (codes, codes_apart) = (Codes::new(twin, 1, inp, group)?, Codes::new(twin, terms, inp, group)?);
    twin.run(|side| NormedLinear {
        x: row.on(side),
        norm: norm.on(side),
        eps,
        form: match form {
            Form::F32 => NormedForm::F32(codes.on(side)),
            Form::Int8 => NormedForm::Int8,
            Form::Int8x2 => NormedForm::Int8x2,
        },
        weights: sample.on(side),
        out: y.on(side),
    })?;
    let plain = twin.rubbish::<f32>(inp)?;
    let int8: QuantisedRows = codes_apart.on(Side::Device);
    let (output, activations) = match form {
        Form::F32 => {
            let f32 = plain.on(Side::Device);
            (NormOutput::Both { f32: f32.clone(), int8 }, Activations::F32(f32))
        }
        Form::Int8 => (Activations::Int8(int8.clone()).into(), Activations::Int8(int8)),
        Form::Int8x2 => (Activations::Int8x2(int8.clone()).into(), Activations::Int8x2(int8)),
    };
    let input = NormInput::Given(row.on(Side::Device));
    let weight_on = norm.on(Side::Device);
    twin.run_on(Side::Device, &RmsNorm { x: input, weight: weight_on, out: output, rows: 1, dim: inp, eps })?;
    let weights = sample.on(Side::Device);
    let product =
        Linear { x: activations, weights, out: apart.on(Side::Device), rows: 1, write: Write::Store };
    twin.run_on(Side::Device, &product)?;

    let what = format!("a row as {form:?} times {}", sample.describe());
    let (got, want) = (twin.get::<u32>(Side::Device, &y)?, twin.get::<u32>(Side::Device, &apart)?);
    equal(&format!("beside a norm and a product, {what}"), &want, &got)?;
    if form == Form::F32 {
        let (got, want) = (codes.get(twin, Side::Device)?, codes_apart.get(twin, Side::Device)?);
        equal(&format!("codes beside those of a norm, {what}"), &want.codes, &got.codes)?;
        codes.compare(&what, twin)?;
    }
    let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f32>() / inp as f32 + eps).sqrt();
    let normed: Vec<f32> = x.iter().zip(&weight).map(|(x, w)| x * w * scale).collect();
    close(twin, &what, &y, &sample.magnitudes(0, &normed), tolerance(form))
}
