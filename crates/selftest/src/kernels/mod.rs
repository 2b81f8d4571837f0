//! Kernels against their CPU twins: a file per operation, each with `pub(super) const CHECKS: &[Check]`.
//!
//! A check draws a shape, odd ones included, runs the operation on both devices, and compares:
//!
//! ```
//! use bessemer_kernels::gather::GatherRows;
//! use bessemer_selftest::{Check, Outcome, Side, Twin, data, equal};
//! use rand::{Rng, rngs::SmallRng};
//!
//! const CHECKS: &[Check] = &[Check { name: "any_shape", run: any_shape }];
//!
//! fn any_shape(twin: &Twin, rng: &mut SmallRng) -> Outcome {
//!     let (rows, n, dim) = (rng.random_range(1..50), rng.random_range(1..20), rng.random_range(1..700));
//!     let x = twin.put(&data::floats(rng, rows * dim))?;
//!     let indices: Vec<u32> = (0..n).map(|_| rng.random_range(0..rows as u32 + 2)).collect();
//!     let indices = twin.put(&indices)?;
//!     let out = twin.rubbish::<f32>(n * dim)?;
//!     twin.run(|side| GatherRows { x: x.on(side), indices: indices.on(side), out: out.on(side), n, dim })?;
//!     let (want, got) = (twin.get::<u32>(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
//!     equal(&format!("out, {n} of {rows}×{dim}"), &want, &got)
//! }
//! # let twin = Twin::new(bessemer_hal::cpu::CpuDevice::new(&Default::default()));
//! # for check in CHECKS { (check.run)(&twin, &mut rand::SeedableRng::seed_from_u64(1)).unwrap(); }
//! ```
//!
//! A file that is new gets its `mod` line and its entry in [`operations`] here.

mod attention;
mod feed;
mod gather;
mod int8;
mod linear;
mod rms_norm;
mod rope;
mod router;
mod rowwise;
mod sampling;

use crate::Check;

/// The operations and their checks.
pub fn operations() -> Vec<(&'static str, &'static [Check])> {
    vec![
        ("attention", attention::CHECKS),
        ("embedding", linear::embedding::CHECKS),
        ("expert_layer", linear::expert_layer::CHECKS),
        ("feed", feed::CHECKS),
        ("gather", gather::CHECKS),
        ("linear", linear::CHECKS),
        ("normed_linear", linear::normed::CHECKS),
        ("rms_norm", rms_norm::CHECKS),
        ("rope", rope::CHECKS),
        ("router", router::CHECKS),
        ("rowwise", rowwise::CHECKS),
        ("sampling", sampling::CHECKS),
        ("tile", linear::tile::CHECKS),
        ("turned_attention", attention::turned::CHECKS),
    ]
}
