//! The halves of a layer of experts that are a launch each, where slots are few.

use bessemer_hal::GpuLimits;
use bessemer_kernels::Op;
use bessemer_kernels::linear::{
    CombinedExperts, Encoding, GateActivation, GatedExperts, LinearLayout, SlotExperts,
};
use bessemer_kernels::router::{Normalise, Router, Scores};
use rand::Rng;
use rand::rngs::SmallRng;

use super::sample::{Form, Rows, Sample, quantised};
use super::{CLOSE, close};
use crate::data::{floats, one_of};
use crate::{Both, Check, Failure, Outcome, Side, Twin, equal};

pub(crate) const CHECKS: &[Check] = &[
    Check { name: "gate_and_up", run: gate_and_up },
    Check { name: "gate_and_up_of_a_choice", run: gate_and_up_of_a_choice },
    Check { name: "down_and_sum", run: down_and_sum },
    Check { name: "down_and_sum_of_many_inputs", run: down_and_sum_of_many_inputs },
    Check { name: "down_and_sum_by_few_threads", run: down_and_sum_by_few_threads },
];

/// An expert for each slot; now and then none.
fn choose(rng: &mut SmallRng, slots: usize, experts: usize) -> Vec<u32> {
    let mut one = || match rng.random_range(0..30) {
        0 => u32::MAX,
        _ => rng.random_range(0..experts as u32),
    };
    (0..slots).map(|_| one()).collect()
}

/// Choices of a row, and rows that have few of them together: so few that nobody sorts them.
fn shape(rng: &mut SmallRng, experts: usize) -> (usize, usize) {
    let top_k = rng.random_range(1..=10);
    (top_k, rng.random_range(1..=(4 * experts - 1).min(128) / top_k))
}

fn gate_and_up(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in quantised() {
        let experts = rng.random_range(4..40);
        let (top_k, rows) = shape(rng, experts);
        let (width, slots) = (16 * rng.random_range(1..6_usize), rows * top_k);
        let steps = rng.random_range(1..6);
        let sample = Sample::draw_narrow(twin, rng, encoding, (experts, 2 * width, steps))?;
        let inp = sample.layout.inp();
        let x = floats(rng, rows * inp);
        let activations = Rows::new(twin, &x, &sample.layout, Form::Int8)?;
        let chosen = choose(rng, slots, experts);
        let ids = twin.put(&chosen)?;
        let out = twin.put(&floats(rng, slots * width))?;
        let activation = one_of(rng, &[GateActivation::Silu, GateActivation::GeluTanh]);
        twin.run(|side| GatedExperts {
            x: activations.on(side),
            weights: sample.on(side),
            experts: SlotExperts::Given(ids.on(side)),
            top_k,
            out: out.on(side),
            slots,
            activation,
        })?;
        let magnitudes = (0..slots).flat_map(|slot| {
            let expert = (chosen[slot] as usize).min(experts - 1);
            let both = sample.magnitudes(expert, &x[slot / top_k * inp..][..inp]);
            (0..width).map(|i| both[i] * both[width + i]).collect::<Vec<_>>()
        });
        let what = format!("{rows} rows, {top_k} choices, {activation:?}, {}", sample.describe());
        close(twin, &what, &out, &magnitudes.collect::<Vec<_>>(), CLOSE)?;
    }
    Ok(())
}

/// Experts that the launch chooses itself: what a router and the launch behind it give, to the bit.
fn gate_and_up_of_a_choice(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in quantised() {
        let experts = one_of(rng, &[4, 40, 128, 256]);
        let top_k = rng.random_range(1..=8.min(experts));
        let rows = rng.random_range(1..=(4 * experts - 1).min(64) / top_k);
        let (width, slots) = (16, rows * top_k);
        let sample = Sample::draw_narrow(twin, rng, encoding, (experts, 2 * width, 1))?;
        let inp = sample.layout.inp();
        let x = floats(rng, rows * inp);
        let activations = Rows::new(twin, &x, &sample.layout, Form::Int8)?;
        // So far apart that rounding changes no order, and many that are equal.
        let scores: Vec<f32> = floats(rng, rows * experts).iter().map(|x| (x * 8.0).round() / 2.0).collect();
        let logits = twin.put(&scores)?;
        let normalise = one_of(rng, &[Normalise::Keep, Normalise::SumToOne]);
        let rooms = || -> Result<_, Failure> {
            let (ids, shares) = (twin.rubbish::<u32>(slots)?, twin.rubbish::<f32>(slots)?);
            Ok((ids, shares, twin.rubbish::<f32>(slots * width)?))
        };
        let router = |side, ids: &Both, shares: &Both| Router {
            logits: logits.on(side),
            ids: ids.on(side),
            weights: shares.on(side),
            rows,
            experts,
            top_k,
            scores: Scores::Softmax,
            normalise,
        };
        let gated = |side, experts, out: &Both| GatedExperts {
            x: activations.on(side),
            weights: sample.on(side),
            experts,
            top_k,
            out: out.on(side),
            slots,
            activation: GateActivation::Silu,
        };
        let (ids, shares, out) = rooms()?;
        twin.run(|side| gated(side, SlotExperts::Chosen(router(side, &ids, &shares)), &out))?;
        let (ids_apart, shares_apart, out_apart) = rooms()?;
        let device = Side::Device;
        twin.run_on(device, &router(device, &ids_apart, &shares_apart))?;
        twin.run_on(device, &gated(device, SlotExperts::Given(ids_apart.on(device)), &out_apart))?;
        let what = format!("{top_k} of {experts} for {rows} rows, {normalise:?}, {}", sample.describe());
        for (name, one, other) in
            [("ids", &ids, &ids_apart), ("weights", &shares, &shares_apart), ("rows", &out, &out_apart)]
        {
            let bits = |both| twin.get::<u32>(device, both);
            equal(&format!("{name} beside a router's, {what}"), &bits(other)?, &bits(one)?)?;
        }
        equal(&format!("ids, {what}"), &twin.get::<u32>(Side::Cpu, &ids)?, &twin.get(device, &ids)?)?;
        let chosen = twin.get::<u32>(Side::Cpu, &ids)?;
        let magnitudes = (0..slots).flat_map(|slot| {
            let both = sample.magnitudes(chosen[slot] as usize, &x[slot / top_k * inp..][..inp]);
            (0..width).map(|i| both[i] * both[width + i]).collect::<Vec<_>>()
        });
        close(twin, &what, &out, &magnitudes.collect::<Vec<_>>(), CLOSE)?;
    }
    Ok(())
}

fn down_and_sum(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in quantised() {
        let experts = rng.random_range(4..40);
        let (top_k, rows) = shape(rng, experts);
        let steps = rng.random_range(1..6);
        added(twin, rng, encoding, (experts, steps), (rows, top_k), u32::MAX)?;
    }
    Ok(())
}

/// More than the threads of a choice take at once.
fn down_and_sum_of_many_inputs(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let encoding = Encoding::Affine { bits: one_of(rng, &[4, 8]) };
    let top_k = rng.random_range(1..=2);
    let steps = rng.random_range(20..=32);
    let rows = rng.random_range(1..=3);
    added(twin, rng, encoding, (8, steps), (rows, top_k), u32::MAX)
}

/// A device whose workgroups have no more threads goes round the choices of a row.
fn down_and_sum_by_few_threads(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for steps in [1, rng.random_range(2..5), 12] {
        let encoding = Encoding::Affine { bits: 4 };
        let top_k = rng.random_range(3..=5);
        added(twin, rng, encoding, (8, steps), (2, top_k), 256)?;
    }
    Ok(())
}

/// Values of blocks that become the same codes on every device: none lies between two codes.
fn clear_cut(rng: &mut SmallRng, layout: &LinearLayout, rows: usize) -> Vec<f32> {
    let mut x = Vec::with_capacity(rows * layout.inp());
    for _ in 0..rows * layout.inp() / layout.block() {
        let unit =
            (rng.random_range(-12..=-4) as f32).exp2() * if rng.random_range(0..20) == 0 { 0.0 } else { 1.0 };
        let peak = rng.random_range(0..layout.block());
        x.extend((0..layout.block()).map(|i| match i == peak {
            true => 127.0 * unit,
            false => (rng.random_range(-126..=126) as f32 + rng.random_range(-0.3..=0.3)) * unit,
        }));
    }
    x
}

fn added(
    twin: &Twin,
    rng: &mut SmallRng,
    encoding: Encoding,
    (experts, steps): (usize, usize),
    (rows, top_k): (usize, usize),
    threads: u32,
) -> Outcome {
    let width = rng.random_range(1..70);
    let sample = Sample::draw_narrow(twin, rng, encoding, (experts, width, steps))?;
    let (inp, slots) = (sample.layout.inp(), rows * top_k);
    let x = clear_cut(rng, &sample.layout, slots);
    let chosen = choose(rng, slots, experts);
    let (shares, before) = (floats(rng, slots), floats(rng, rows * width));
    let (input, ids, weights) = (twin.put(&x)?, twin.put(&chosen)?, twin.put(&shares)?);
    let out = twin.put(&before)?;
    let op = |side| CombinedExperts {
        x: input.on(side),
        weights: sample.on(side),
        ids: ids.on(side),
        shares: weights.on(side),
        out: out.on(side),
        rows,
        top_k,
    };
    twin.run_on(Side::Cpu, &op(Side::Cpu))?;
    match twin.gpu() {
        Some(limits) => {
            let limits = GpuLimits { workgroup_threads: limits.workgroup_threads.min(threads), ..*limits };
            let launches = op(Side::Device).gpu(twin.catalog(Side::Device), &limits, None)?;
            twin.run_launches(Side::Device, &launches)?;
        }
        None => twin.run_on(Side::Device, &op(Side::Device))?,
    }
    let mut magnitudes: Vec<f32> = before.iter().map(|v| v.abs()).collect();
    for (slot, id) in chosen.iter().enumerate().filter(|(_, id)| (**id as usize) < experts) {
        let terms = sample.magnitudes(*id as usize, &x[slot * inp..][..inp]);
        for (sum, term) in magnitudes[slot / top_k * width..].iter_mut().zip(terms) {
            *sum += term * shares[slot].abs();
        }
    }
    let what = format!("{rows} rows, {top_k} choices, {}", sample.describe());
    close(twin, &what, &out, &magnitudes, CLOSE)
}
