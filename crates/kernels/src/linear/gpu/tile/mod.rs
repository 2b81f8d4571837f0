//! Products of many rows: a workgroup has a tile of the output, and weights are unpacked once for all rows of the tile.
//!
//! - *Plain* tiles compute in f32, as exactly as the CPU does; f32 activations take these on every device.
//! - *Cooperative* tiles use matrix units: factors are f16, sums f32. Rows are made halves once, before the product, and
//!   each row is scaled by a power of two, so that none leaves the range of f16; weights beyond ±2000 or so are clamped.
//! - Rows of experts are *gathered* on the way in and scattered on the way out; which expert a tile belongs to each
//!   workgroup finds out by itself (`rows.wgsl`), so that a launch depends on the number of slots alone.
//! - Where tiles are too few for the device, the sum over the inputs is *split*, and one more launch adds the parts up.
//!   The bits of a row are the same for one cut, whatever rows are beside it; `plan` chooses the cut by the shape.

mod coop;
mod params;
mod plain;
mod plan;

use bessemer_hal::{Dispatch, GpuLimits, Result, Slice};

use self::plan::{Plan, Shape, plan};
use crate::linear::ops::{Experts, Linear};
use crate::{Activations, Catalog};

fn linear_plan(op: &Linear, limits: &GpuLimits) -> Plan {
    let layout = &op.weights.layout;
    let shape = Shape { rows: op.rows, experts: 0, out: layout.out(), inp: layout.inp() };
    planned(&op.x, shape, limits)
}

fn experts_plan(op: &Experts, limits: &GpuLimits) -> Plan {
    let layout = &op.weights.layout;
    let shape = Shape { rows: op.slots, experts: layout.experts(), out: layout.out(), inp: layout.inp() };
    planned(&op.x, shape, limits)
}

/// Who gives f32 activations wants f32 arithmetic: matrix units would round both factors.
fn planned(x: &Activations, shape: Shape, limits: &GpuLimits) -> Plan {
    match x {
        Activations::F32(_) => Plan::Plain,
        Activations::Int8(_) | Activations::Int8x2(_) => plan(shape, limits, coop::matrix_size()),
    }
}

/// The launches of a matrix product. `scratch` has [`linear_scratch`] bytes.
pub(super) fn linear(
    op: &Linear,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    match linear_plan(op, limits) {
        Plan::Plain => plain::linear(op, catalog),
        Plan::Cooperative(cut) => coop::linear(op, catalog, cut, scratch),
    }
}

/// Bytes that the launches of [`linear`] pass among themselves.
pub(super) fn linear_scratch(op: &Linear, limits: &GpuLimits) -> usize {
    match linear_plan(op, limits) {
        Plan::Plain => 0,
        Plan::Cooperative(cut) => coop::linear_scratch(op, cut),
    }
}

/// The launches of a product of experts. `scratch` has [`experts_scratch`] bytes.
pub(super) fn experts(
    op: &Experts,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    match experts_plan(op, limits) {
        Plan::Plain => plain::experts(op, catalog),
        Plan::Cooperative(cut) => coop::experts(op, catalog, cut, scratch),
    }
}

/// Bytes that the launches of [`experts`] pass among themselves.
pub(super) fn experts_scratch(op: &Experts, limits: &GpuLimits) -> usize {
    match experts_plan(op, limits) {
        Plan::Plain => 0,
        Plan::Cooperative(cut) => coop::experts_scratch(op, cut),
    }
}
