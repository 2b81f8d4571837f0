//! Launches of the plain tiles.

use bessemer_hal::{Binding, Dispatch, Result, Slice};

use super::coop::weights_name;
use super::params::{Params, expert_tiles};
use crate::linear::layout::LinearLayout;
use crate::linear::ops::{Experts, Linear, SlotOrder, Weights};
use crate::shaders::launch;
use crate::{Activations, Catalog};

/// Rows of a tile, and outputs.
const TILE: usize = 64;

pub(super) fn linear(op: &Linear, catalog: &Catalog) -> Result<Vec<Dispatch>> {
    let unused = &op.weights.packed;
    let bindings = bind(&op.weights, &op.x, [unused, unused], &op.out);
    let grid = [op.rows.div_ceil(TILE), op.weights.layout.out().div_ceil(TILE), 1];
    let name = name(&op.weights.layout, &op.x);
    Ok(vec![launch(catalog, &name, bindings, &Params::linear(op), grid)?])
}

pub(super) fn experts(op: &Experts, catalog: &Catalog) -> Result<Vec<Dispatch>> {
    let SlotOrder { offsets, order } = op.slot_order()?;
    let bindings = bind(&op.weights, &op.x, [offsets, order], &op.out);
    let grid = [expert_tiles(op, TILE), op.weights.layout.out().div_ceil(TILE), 1];
    let name = name(&op.weights.layout, &op.x);
    Ok(vec![launch(catalog, &name, bindings, &Params::experts(op), grid)?])
}

/// A binding that a launch does not use holds the weights.
fn bind(weights: &Weights, x: &Activations, routing: [&Slice; 2], out: &Slice) -> Vec<Binding> {
    let [offsets, order] = routing;
    let bias = weights.bias.as_ref().unwrap_or(&weights.packed);
    let mut bindings: Vec<Binding> =
        [&weights.packed, bias, offsets, order].map(|slice| Binding::read(slice.clone())).into();
    bindings.push(Binding::write_any(out.clone()));
    match x {
        Activations::F32(x) => bindings.push(Binding::read(x.clone())),
        Activations::Int8(x) | Activations::Int8x2(x) => {
            bindings.extend([&x.codes, &x.scales].map(|slice| Binding::read(slice.clone())));
        }
    }
    bindings
}

fn name(layout: &LinearLayout, x: &Activations) -> String {
    let form = match x {
        _ if !layout.is_quantised() => "",
        Activations::F32(_) => "_f32",
        Activations::Int8(_) | Activations::Int8x2(_) => "_int8",
    };
    format!("tile_plain_{}{form}", weights_name(layout))
}
