//! Products on a GPU: the kernel that is chosen, launched.

use bessemer_hal::{Dispatch, GpuLimits, Result, Slice};

use super::select::{self, Shape, Variant, select};
use super::{few, tile};
use crate::Catalog;
use crate::linear::ops::{Experts, Linear};

fn linear_variant(op: &Linear, limits: &GpuLimits) -> Variant {
    let shape = Shape { rows: op.rows, experts: 1 };
    select(shape, few::rows(&op.weights.layout, &op.x), limits)
}

fn experts_variant(op: &Experts, limits: &GpuLimits) -> Variant {
    let shape = Shape { rows: op.slots, experts: op.weights.layout.experts() };
    select(shape, few::rows(&op.weights.layout, &op.x), limits)
}

/// Whether the launches of a product of experts read its slots by expert.
pub(in crate::linear) fn reads_order(slots: usize, experts: usize, limits: &GpuLimits) -> bool {
    select::reads_order(Shape { rows: slots, experts }, limits)
}

/// The launches of a matrix product. `scratch` has [`linear_scratch`] bytes.
pub(in crate::linear) fn linear(
    op: &Linear,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    match linear_variant(op, limits) {
        Variant::Few { rows } => few::linear(op, catalog, rows),
        Variant::Tile => tile::linear(op, catalog, limits, scratch),
    }
}

/// Bytes that the launches of [`linear`] pass among themselves.
pub(in crate::linear) fn linear_scratch(op: &Linear, limits: &GpuLimits) -> usize {
    match linear_variant(op, limits) {
        Variant::Few { .. } => 0,
        Variant::Tile => tile::linear_scratch(op, limits),
    }
}

/// The launches of a product of experts. `scratch` has [`experts_scratch`] bytes.
pub(in crate::linear) fn experts(
    op: &Experts,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    match experts_variant(op, limits) {
        Variant::Few { rows } => few::experts(op, catalog, limits, rows),
        Variant::Tile => tile::experts(op, catalog, limits, scratch),
    }
}

/// Bytes that the launches of [`experts`] pass among themselves.
pub(in crate::linear) fn experts_scratch(op: &Experts, limits: &GpuLimits) -> usize {
    match experts_variant(op, limits) {
        Variant::Few { .. } => 0,
        Variant::Tile => tile::experts_scratch(op, limits),
    }
}
