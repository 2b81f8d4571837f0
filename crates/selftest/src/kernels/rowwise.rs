//! Quantisation of activations, and the gate of a feed-forward layer.

use bessemer_kernels::linear::{GateActivation, Gated, Quantise};
use bessemer_kernels::{Activations, View};
use rand::Rng;
use rand::rngs::SmallRng;

use super::int8::{Codes, close_codes};
use crate::data::{floats, one_of};
use crate::{Both, Check, Failure, Outcome, Side, Tolerance, Twin, compare};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "quantise", run: quantise },
    Check { name: "quantise_to_two_terms", run: two_terms },
    Check { name: "gated_to_f32", run: gated_to_f32 },
    Check { name: "gated_to_int8", run: gated_to_int8 },
    Check { name: "gated_limits", run: gated_limits },
];

/// Groups of very different size, some of them zero, some not finite.
fn groups_of(rng: &mut SmallRng, count: usize, group: usize) -> Vec<f32> {
    let mut x = floats(rng, count);
    for group in x.chunks_mut(group) {
        let size = one_of(rng, &[1.0, 1.0, 1.0, 1e-4, 1e4, 1e-25, 1e30, 0.0, 1e-32]);
        group.iter_mut().for_each(|x| *x *= size);
        if rng.random_ratio(1, 12) {
            group[rng.random_range(0..group.len())] =
                one_of(rng, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        }
    }
    x
}

fn quantise(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for group in [32, 64] {
        let (rows, dim) = (rng.random_range(1..=70), group * rng.random_range(1..50));
        let x = twin.put(&groups_of(rng, rows * dim, group))?;
        let out = Codes::new(twin, rows, dim, group)?;
        twin.run(|side| Quantise { x: x.on(side), out: Activations::Int8(out.on(side)), rows, dim })?;
        out.compare(&format!("{rows}×{dim} in groups of {group}"), twin)?;
    }
    Ok(())
}

fn two_terms(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let group = one_of(rng, &[32, 64]);
    let (rows, dim) = (rng.random_range(1..=40), group * rng.random_range(1..50));
    let values = groups_of(rng, rows * dim, group);
    let x = twin.put(&values)?;
    let out = Codes::new(twin, 2 * rows, dim, group)?;
    twin.run(|side| Quantise { x: x.on(side), out: Activations::Int8x2(out.on(side)), rows, dim })?;
    let what = format!("{rows}×{dim} in two terms, groups of {group}");
    let (want, got) = (out.get(twin, Side::Cpu)?, out.get(twin, Side::Device)?);
    got.sums_are_right(&what)?;
    let groups = dim / group;
    for (at, x) in values.chunks_exact(group).enumerate() {
        let what = format!("group {} of row {}, {what}", at % groups, at / groups);
        // The group's place in the first row of codes and in the second.
        let first = at / groups * 2 * groups + at % groups;
        let [first, second] = [first, first + groups];
        let codes = |codes: &[i8], at: usize| codes[at * group..(at + 1) * group].to_vec();
        close_codes(&what, &codes(&want.codes, first), &codes(&got.codes, first))?;
        let scales = |scales: &[f32]| [scales[first], scales[second]];
        let (want_scales, got_scales) = (scales(&want.scales), scales(&got.scales));
        // The second scale comes from a difference, which loses digits.
        compare(&format!("scales, {what}"), &want_scales, &got_scales, Tolerance::new(0.0, 1e-2))?;
        if got_scales[0].is_finite() {
            let both = codes(&got.codes, first).into_iter().zip(codes(&got.codes, second));
            let sum: Vec<f32> =
                both.map(|(a, b)| got_scales[0] * f32::from(a) + got_scales[1] * f32::from(b)).collect();
            let step = 0.52 * got_scales[1] + 1e-30;
            compare(&format!("what the terms add up to, {what}"), x, &sum, Tolerance::new(step, 1e-6))?;
        }
    }
    Ok(())
}

/// Two operands of a gate, in one matrix or each in its own, dense or not.
struct Operands {
    gate: Both,
    up: Both,
    strides: [usize; 2],
    offsets: [usize; 2],
    rows: usize,
    dim: usize,
}

impl Operands {
    fn draw(
        twin: &Twin,
        rng: &mut SmallRng,
        (rows, dim): (usize, usize),
        aligned: bool,
        size: f32,
    ) -> Result<Self, Failure> {
        let mut values = |stride: usize| -> Vec<f32> {
            floats(rng, rows * stride).into_iter().map(|x| x * size).collect()
        };
        if aligned {
            // The halves of a fused projection.
            let both = twin.put(&values(2 * dim))?;
            return Ok(Self {
                gate: both.clone(),
                up: both,
                strides: [2 * dim; 2],
                offsets: [0, dim],
                rows,
                dim,
            });
        }
        let (gate, up) = (twin.put(&values(dim + 3))?, twin.put(&values(dim + 5))?);
        Ok(Self { gate, up, strides: [dim + 3, dim + 5], offsets: [1, 2], rows, dim })
    }

    fn op(&self, side: Side, out: Activations, activation: GateActivation) -> Gated {
        let view = |both: &Both, at: usize| View {
            slice: both.on(side),
            stride: self.strides[at],
            offset: self.offsets[at],
        };
        let (gate, up) = (view(&self.gate, 0), view(&self.up, 1));
        Gated { gate, up, out, rows: self.rows, dim: self.dim, activation }
    }
}

const ACTIVATIONS: [GateActivation; 2] = [GateActivation::Silu, GateActivation::GeluTanh];

/// An exponential as GPUs have it: the larger its argument, the more of its digits are lost.
const CLOSE: Tolerance = Tolerance::new(1e-6, 2e-5);

fn gated_to_f32(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for activation in ACTIVATIONS {
        for (unit, aligned) in [(4, true), (1, true), (1, false), (4, false)] {
            let (rows, dim) = (rng.random_range(1..=40), unit * rng.random_range(1..500));
            let operands = Operands::draw(twin, rng, (rows, dim), aligned, 6.0)?;
            let out = twin.rubbish::<f32>(rows * dim)?;
            twin.run(|side| operands.op(side, Activations::F32(out.on(side)), activation))?;
            let (want, got) = (twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
            compare(&format!("{activation:?} {rows}×{dim}, aligned: {aligned}"), &want, &got, CLOSE)?;
        }
    }
    Ok(())
}

fn gated_to_int8(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for activation in ACTIVATIONS {
        for (group, aligned) in [(32, true), (64, true), (32, false), (64, false)] {
            let (rows, dim) = (rng.random_range(1..=40), group * rng.random_range(1..40));
            let operands = Operands::draw(twin, rng, (rows, dim), aligned, 6.0)?;
            let out = Codes::new(twin, rows, dim, group)?;
            twin.run(|side| operands.op(side, Activations::Int8(out.on(side)), activation))?;
            out.compare(&format!("{activation:?} {rows}×{dim} in groups of {group}"), twin)?;
        }
    }
    Ok(())
}

/// Gates beyond which an exponential leaves the range of f32, and what is no number.
fn gated_limits(twin: &Twin, _: &mut SmallRng) -> Outcome {
    let gates =
        [0.0, -0.0, 1e-38, 88.0, -88.0, 120.0, -120.0, 1e6, -1e6, 1e12, -1e12, 1e25, f32::NAN, f32::INFINITY];
    let dim = gates.len();
    let operands = Operands {
        gate: twin.put(&gates)?,
        up: twin.put(&vec![0.5_f32; dim])?,
        strides: [dim; 2],
        offsets: [0; 2],
        rows: 1,
        dim,
    };
    for activation in ACTIVATIONS {
        let out = twin.rubbish::<f32>(dim)?;
        twin.run(|side| operands.op(side, Activations::F32(out.on(side)), activation))?;
        let (want, got) = (twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
        compare(&format!("{activation:?} of {gates:?}"), &want, &got, CLOSE)?;
    }
    Ok(())
}
