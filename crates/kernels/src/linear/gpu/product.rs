//! Products on a GPU: the kernel that is chosen, launched.

use bessemer_hal::{DeviceError, Dispatch, GpuLimits, Result, Slice};

use super::select::{self, Shape, Variant, select};
use super::{few, tile};
use crate::linear::ops::{Experts, Linear};
use crate::linear::{CombinedExperts, GatedExperts, LinearLayout, NormedLinear};
use crate::{Catalog, bounds};

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

/// Whether a row can be normalised where it is multiplied.
pub(in crate::linear) fn normalises(layout: &LinearLayout, limits: &GpuLimits) -> bool {
    few::normalises(layout, limits)
}

/// The launch of a product of a row that is normalised on the way.
pub(in crate::linear) fn normed_linear(
    op: &NormedLinear,
    catalog: &Catalog,
    limits: &GpuLimits,
) -> Result<Vec<Dispatch>> {
    few::normed_linear(op, catalog, limits)
}

/// Whether the first half of a layer of experts is one launch.
pub(in crate::linear) fn gates(layout: &LinearLayout, slots: usize, limits: &GpuLimits) -> bool {
    few::gates(layout) && !reads_order(slots, layout.experts(), limits)
}

/// Whether the first half of a layer of experts can choose from so many by itself.
pub(in crate::linear) fn chooses(experts: usize) -> bool {
    few::chooses(experts)
}

/// The launch of the first half of a layer of experts.
pub(in crate::linear) fn gated_experts(
    op: &GatedExperts,
    catalog: &Catalog,
    limits: &GpuLimits,
) -> Result<Vec<Dispatch>> {
    bounds::rule("gated_experts", gates(&op.weights.layout, op.slots, limits), || {
        format!("no launch takes {} slots of this layout; record experts and gated", op.slots)
    })?;
    few::gated_experts(op, catalog)
}

/// Threads of the launch that is the second half of a layer of experts; `None` where none can be.
fn combining_threads(layout: &LinearLayout, rows: usize, top_k: usize, limits: &GpuLimits) -> Option<usize> {
    let few = !reads_order(rows * top_k, layout.experts(), limits);
    few::combining_threads(layout, top_k, limits).filter(|_| few)
}

/// Whether the second half of a layer of experts is one launch.
pub(in crate::linear) fn combines(
    layout: &LinearLayout,
    rows: usize,
    top_k: usize,
    limits: &GpuLimits,
) -> bool {
    combining_threads(layout, rows, top_k, limits).is_some()
}

/// The launch of the second half of a layer of experts.
pub(in crate::linear) fn combined_experts(
    op: &CombinedExperts,
    catalog: &Catalog,
    limits: &GpuLimits,
) -> Result<Vec<Dispatch>> {
    let CombinedExperts { rows, top_k, .. } = *op;
    match combining_threads(&op.weights.layout, rows, top_k, limits) {
        Some(threads) => few::combined_experts(op, catalog, threads),
        None => Err(DeviceError::Usage(format!(
            "combined_experts: no launch takes {rows} rows of {top_k} choices in this layout; record experts and combine"
        ))),
    }
}
