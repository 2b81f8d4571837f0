//! The gate of a feed-forward layer.

use bessemer_hal::{Binding, Dispatch, Result};
use bytemuck::{Pod, Zeroable};

use super::write_int8;
use crate::linear::{GateActivation, Gated};
use crate::shaders::{by_rows, launch};
use crate::{Activations, Catalog, View};

/// Where the rows of an operand lie, in the unit of the kernel's loads.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Columns {
    stride: u32,
    offset: u32,
}

impl Columns {
    fn of(view: &View, unit: usize) -> Self {
        Self { stride: (view.stride / unit) as u32, offset: (view.offset / unit) as u32 }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct F32Params {
    rows: u32,
    /// In the unit of the loads.
    dim: u32,
    gelu: u32,
    gate: Columns,
    up: Columns,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Int8Params {
    rows: u32,
    /// Vectors of four columns in a row.
    cells: u32,
    gelu: u32,
    /// Vectors that share a scale.
    lanes: u32,
    gate: Columns,
    up: Columns,
}

/// The launch of a gate whose shapes were checked.
pub(in crate::linear) fn gated(op: &Gated, catalog: &Catalog) -> Result<Dispatch> {
    let aligned = [&op.gate, &op.up].iter().all(|view| (view.stride | view.offset).is_multiple_of(4));
    let gelu = u32::from(op.activation == GateActivation::GeluTanh);
    let rows = op.rows as u32;
    let mut bindings = vec![Binding::read(op.gate.slice.clone()), Binding::read(op.up.slice.clone())];
    match &op.out {
        Activations::F32(out) => {
            bindings.push(Binding::write_any(out.clone()));
            let (name, unit) = match aligned && op.dim.is_multiple_of(4) {
                true => ("gated_f32_aligned", 4),
                false => ("gated_f32_any", 1),
            };
            let (gate, up) = (Columns::of(&op.gate, unit), Columns::of(&op.up, unit));
            let dim = op.dim / unit;
            let params = F32Params { rows, dim: dim as u32, gelu, gate, up };
            launch(catalog, name, bindings, &params, by_rows(dim.div_ceil(64), op.rows))
        }
        Activations::Int8(out) | Activations::Int8x2(out) => {
            bindings.extend(write_int8(out));
            let name = if aligned { "gated_int8_aligned" } else { "gated_int8_any" };
            let (gate, up) = (Columns::of(&op.gate, 1), Columns::of(&op.up, 1));
            let (cells, lanes) = (op.dim as u32 / 4, out.group as u32 / 4);
            let params = Int8Params { rows, cells, gelu, lanes, gate, up };
            launch(catalog, name, bindings, &params, by_rows(op.dim.div_ceil(256), op.rows))
        }
    }
}
