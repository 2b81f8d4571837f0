//! The GPU form: a workgroup has a row. Rows that no variant holds take a launch for each step.

use bessemer_hal::{Binding, DeviceError, Dispatch, GpuLimits, Result, Slice};
use bytemuck::{Pod, Zeroable};

use super::variants::{From, HELD, To, name};
use super::{NormInput, NormOutput, RmsNorm};
use crate::linear::Quantise;
use crate::shaders::{by_rows, launch};
use crate::{Activations, Catalog, Op, QuantisedRows, bounds};

/// As `row.wgsl` has it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    /// Vectors of four columns in a row.
    cells: u32,
    eps: f32,
    /// Vectors that share a scale.
    lanes: u32,
    top_k: u32,
}

/// As `rms_norm_any.wgsl` has it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AnyParams {
    rows: u32,
    dim: u32,
    eps: f32,
}

/// Vectors of four columns that a thread holds; `None` where no variant holds a row.
fn held(op: &RmsNorm) -> Option<usize> {
    let fits = |held: &usize| op.dim.is_multiple_of(4) && op.dim <= held * 1024;
    HELD.into_iter().find(fits)
}

/// Bytes that the launches pass among themselves: f32 rows on their way to int8, where they do not go out anyway.
pub(super) fn scratch(op: &RmsNorm) -> usize {
    match op.out.kind() {
        To::Int8 | To::Int8x2 if held(op).is_none() => 4 * op.rows * op.dim,
        _ => 0,
    }
}

/// The launches, in order.
pub(super) fn launches(
    op: &RmsNorm,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    bounds::indices("rms_norm", &[op.rows, op.dim])?;
    match held(op) {
        Some(held) => Ok(vec![whole(op, catalog, held)?]),
        None => in_steps(op, catalog, limits, scratch),
    }
}

/// All in one launch.
fn whole(op: &RmsNorm, catalog: &Catalog, held: usize) -> Result<Dispatch> {
    let mut params =
        Params { rows: op.rows as u32, cells: op.dim as u32 / 4, eps: op.eps, lanes: 0, top_k: 0 };
    let (from, x) = match &op.x {
        NormInput::Given(x) => (From::Given, Binding::read(x.clone())),
        NormInput::Combined(combine) => (From::Combined, Binding::write_any(combine.out.clone())),
    };
    let mut bindings = vec![x, Binding::read(op.weight.clone())];
    let (plain, int8) = op.out.parts();
    if let Some((QuantisedRows { codes, scales, sums, group }, _)) = int8 {
        bindings.extend([codes, scales, sums].map(|slice| Binding::write_any(slice.clone())));
        params.lanes = *group as u32 / 4;
    }
    bindings.extend(plain.map(|out| Binding::write_any(out.clone())));
    if let NormInput::Combined(combine) = &op.x {
        bounds::indices("rms_norm", &[op.rows, combine.top_k, op.dim])?;
        bindings.extend([&combine.y, &combine.weights].map(|slice| Binding::read(slice.clone())));
        params.top_k = combine.top_k as u32;
    }
    launch(catalog, &name(from, op.out.kind(), held), bindings, &params, by_rows(1, op.rows))
}

/// One thing after the other.
fn in_steps(
    op: &RmsNorm,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    let RmsNorm { rows, dim, eps, .. } = *op;
    let mut launches = Vec::new();
    let x = match &op.x {
        NormInput::Given(x) => x,
        NormInput::Combined(combine) => {
            launches.extend(combine.gpu(catalog, limits, None)?);
            &combine.out
        }
    };
    let (plain, quantised) = match &op.out {
        NormOutput::One(Activations::F32(out)) => (out, None),
        NormOutput::One(int8) => {
            let scratch = scratch.filter(|scratch| scratch.size() >= self::scratch(op) as u64);
            let none = || DeviceError::Usage("rms_norm: no scratch memory".into());
            (scratch.ok_or_else(none)?, Some(int8.clone()))
        }
        NormOutput::Both { f32, int8 } => (f32, Some(Activations::Int8(int8.clone()))),
    };
    let bindings =
        vec![Binding::read(x.clone()), Binding::read(op.weight.clone()), Binding::write_any(plain.clone())];
    let params = AnyParams { rows: rows as u32, dim: dim as u32, eps };
    launches.push(launch(catalog, "rms_norm_any", bindings, &params, by_rows(1, rows))?);
    if let Some(out) = quantised {
        launches.extend(Quantise { x: plain.clone(), out, rows, dim }.gpu(catalog, limits, None)?);
    }
    Ok(launches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_compiled() {
        for from in [From::Given, From::Combined] {
            for to in [To::F32, To::Int8, To::Int8x2, To::Both] {
                for held in HELD {
                    let name = name(from, to, held);
                    assert!(crate::shaders::find(&name).is_some(), "{name}");
                }
            }
        }
    }
}
