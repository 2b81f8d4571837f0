//! Tokens of one step put into the next.

use bessemer_kernels::feed::{Feed, NOT_FED};
use bessemer_kernels::sampling::SampleOut;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::{Check, Outcome, Side, Twin, equal};

pub(super) const CHECKS: &[Check] = &[Check { name: "any_shape", run: any_shape }];

/// Some entries leave the draws, some the ids, and some are not used.
fn any_shape(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (draws, room) = (rng.random_range(1..70), rng.random_range(1..300_u32));
    let n = rng.random_range(1..=room as usize);
    let drawn: Vec<SampleOut> =
        (0..draws).map(|_| SampleOut { token: rng.random_range(0..200_000), logprob: 0.0 }).collect();
    let from: Vec<u32> = (0..n)
        .map(|_| if rng.random_ratio(1, 4) { NOT_FED } else { rng.random_range(0..draws + 2) })
        .collect();
    let mut to: Vec<u32> = (0..room + 2).collect();
    to.shuffle(rng);
    let ids: Vec<u32> = (0..room).map(|_| rng.random_range(0..200_000)).collect();
    let (drawn, from, to) = (twin.put(&drawn)?, twin.put(&from)?, twin.put(&to)?);
    let ids = twin.put(&ids)?;
    twin.run(|side| Feed {
        drawn: drawn.on(side),
        from: from.on(side),
        to: to.on(side),
        ids: ids.on(side),
        n,
    })?;
    let (want, got) = (twin.get::<u32>(Side::Cpu, &ids)?, twin.get(Side::Device, &ids)?);
    equal(&format!("{n} of {draws} into {room}"), &want, &got)
}
