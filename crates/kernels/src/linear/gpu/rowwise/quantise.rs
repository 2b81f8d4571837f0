//! Activations to int8.

use bessemer_hal::{Binding, Dispatch, Result};
use bytemuck::{Pod, Zeroable};

use super::write_int8;
use crate::linear::Quantise;
use crate::shaders::{by_rows, launch};
use crate::{Catalog, QuantisedRows};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    /// Vectors of four columns in a row.
    cells: u32,
    /// Of these, how many share a scale.
    lanes: u32,
}

/// The launch of a quantisation to `out`, of one term or two.
pub(in crate::linear) fn quantise(
    op: &Quantise,
    out: &QuantisedRows,
    terms: usize,
    catalog: &Catalog,
) -> Result<Dispatch> {
    let mut bindings = vec![Binding::read(op.x.clone())];
    bindings.extend(write_int8(out));
    let params = Params { rows: op.rows as u32, cells: op.dim as u32 / 4, lanes: out.group as u32 / 4 };
    let groups = by_rows(op.dim.div_ceil(256), op.rows);
    launch(catalog, if terms == 2 { "quantise_2" } else { "quantise_1" }, bindings, &params, groups)
}
