//! Mixture-of-experts routing.

use bessemer_kernels::router::{Combine, ExpertSort, Normalise, Router, Scores};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::data::{floats, one_of};
use crate::{Check, Failure, Outcome, Side, Tolerance, Twin, compare, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "choose", run: choose },
    Check { name: "choose_special", run: choose_special },
    Check { name: "sort", run: sort },
    Check { name: "sort_extremes", run: sort_extremes },
    Check { name: "combine", run: combine },
];

/// Runs the router on both devices and compares.
fn route(twin: &Twin, logits: &[f32], [rows, experts, top_k]: [usize; 3], normalise: Normalise) -> Outcome {
    let logits = twin.put(logits)?;
    let (ids, weights) = (twin.rubbish::<u32>(rows * top_k)?, twin.rubbish::<f32>(rows * top_k)?);
    twin.run(|side| Router {
        logits: logits.on(side),
        ids: ids.on(side),
        weights: weights.on(side),
        rows,
        experts,
        top_k,
        scores: Scores::Softmax,
        normalise,
    })?;
    let what = format!("{top_k} of {experts} for {rows} rows, {normalise:?}");
    let (want, got) = (twin.get::<f32>(Side::Cpu, &weights)?, twin.get::<f32>(Side::Device, &weights)?);
    compare(&format!("weights, {what}"), &want, &got, Tolerance::new(1e-30, 1e-5))?;
    let (want_ids, got_ids) = (twin.get::<u32>(Side::Cpu, &ids)?, twin.get::<u32>(Side::Device, &ids)?);
    for (row, (want, got)) in want_ids.chunks(top_k).zip(got_ids.chunks(top_k)).enumerate() {
        let mut seen = got.to_vec();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() < top_k || seen.iter().any(|&id| id as usize >= experts) {
            return Err(Failure::wrong(format!("ids of row {row}, {what}: {got:?}, should be {want:?}")));
        }
    }
    equal(&format!("ids, {what}"), &want_ids, &got_ids)
}

/// Logits far enough apart that rounding cannot change their order, and many that are equal.
fn choose(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for experts in [one_of(rng, &[8, 60, 128]), rng.random_range(1..=128), rng.random_range(129..=700)] {
        let rows = rng.random_range(1..=40);
        let any = rng.random_range(1..=experts);
        let top_k = one_of(rng, &[1, experts, 8.min(experts), any]);
        let steps = one_of(rng, &[3.0_f32, 1000.0, 60_000.0]);
        let logits: Vec<f32> =
            floats(rng, rows * experts).iter().map(|x| (x * steps).round() / steps * 6.0).collect();
        let normalise = one_of(rng, &[Normalise::Keep, Normalise::SumToOne]);
        route(twin, &logits, [rows, experts, top_k], normalise)?;
    }
    Ok(())
}

/// What is not a number, infinities, and scores that are too small to be any.
fn choose_special(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, experts) = (rng.random_range(4..=20), rng.random_range(1..=300));
    let mut logits: Vec<f32> = floats(rng, rows * experts).iter().map(|x| (x * 64.0).round()).collect();
    for row in logits.chunks_mut(experts) {
        let special =
            one_of(rng, &[f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN]);
        let share = one_of(rng, &[1, 3, 100]);
        row.iter_mut().for_each(|x| {
            if rng.random_range(0..share) == 0 {
                *x = special;
            }
        });
    }
    let top_k = rng.random_range(1..=experts);
    let normalise = one_of(rng, &[Normalise::Keep, Normalise::SumToOne]);
    route(twin, &logits, [rows, experts, top_k], normalise)
}

fn sort_ids(twin: &Twin, ids: &[u32], [rows, experts, top_k]: [usize; 3]) -> Outcome {
    let ids = twin.put(ids)?;
    let (offsets, order) = (twin.rubbish::<u32>(experts + 1)?, twin.rubbish::<u32>(rows * top_k)?);
    twin.run(|side| ExpertSort {
        ids: ids.on(side),
        offsets: offsets.on(side),
        order: order.on(side),
        rows,
        experts,
        top_k,
    })?;
    let what = format!("{rows} rows to {top_k} of {experts}");
    let both = |slice| Ok::<_, Failure>((twin.get::<u32>(Side::Cpu, slice)?, twin.get(Side::Device, slice)?));
    let (want, got) = both(&offsets)?;
    equal(&format!("offsets, {what}"), &want, &got)?;
    let (want, got) = both(&order)?;
    equal(&format!("order, {what}"), &want, &got)
}

/// From a row to thousands of slots.
fn sort(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for most in [4, 60, 1100] {
        let (rows, top_k) = (rng.random_range(1..=most), rng.random_range(1..=10));
        let experts = one_of(rng, &[1, 8, 60, 128, 256]);
        let ids: Vec<u32> = (0..rows * top_k).map(|_| rng.random_range(0..experts as u32)).collect();
        sort_ids(twin, &ids, [rows, experts, top_k])?;
    }
    Ok(())
}

/// All to one expert, and ids that are none.
fn sort_extremes(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, top_k, experts) =
        (rng.random_range(1..=300), rng.random_range(1..=8), rng.random_range(1..=40));
    let one = rng.random_range(0..experts as u32 + 2);
    sort_ids(twin, &vec![one; rows * top_k], [rows, experts, top_k])?;
    let ids: Vec<u32> =
        (0..rows * top_k).map(|_| one_of(rng, &[0, experts as u32 - 1, experts as u32, u32::MAX])).collect();
    sort_ids(twin, &ids, [rows, experts, top_k])
}

fn combine(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for dim in [rng.random_range(1..500), 4 * rng.random_range(1..400)] {
        let (rows, top_k) = (rng.random_range(1..=40), rng.random_range(1..=11));
        let y = twin.put(&floats(rng, rows * top_k * dim))?;
        let weights = twin.put(&floats(rng, rows * top_k))?;
        let out = twin.put(&floats(rng, rows * dim))?;
        twin.run(|side| Combine {
            y: y.on(side),
            weights: weights.on(side),
            out: out.on(side),
            rows,
            top_k,
            dim,
        })?;
        let (want, got) = (twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
        compare(&format!("{rows}×{top_k}×{dim}"), &want, &got, Tolerance::new(1e-5, 1e-6))?;
    }
    Ok(())
}
