//! Rows picked by index.

use bessemer_kernels::gather::GatherRows;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::data::floats;
use crate::{Check, Outcome, Side, Twin, equal};

pub(super) const CHECKS: &[Check] = &[Check { name: "any_shape", run: any_shape }];

/// Some indices leave the matrix, which part of a row follows.
fn any_shape(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (rows, n, dim) = (rng.random_range(1..50), rng.random_range(1..70), rng.random_range(1..900));
    let x = twin.put(&floats(rng, rows * dim + dim - 1))?;
    let indices: Vec<u32> = (0..n)
        .map(|_| if rng.random_ratio(1, 9) { u32::MAX } else { rng.random_range(0..rows as u32 + 2) })
        .collect();
    let indices = twin.put(&indices)?;
    let out = twin.rubbish::<f32>(n * dim)?;
    twin.run(|side| GatherRows { x: x.on(side), indices: indices.on(side), out: out.on(side), n, dim })?;
    let (want, got) = (twin.get::<u32>(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
    equal(&format!("{n} of {rows}×{dim}"), &want, &got)
}
