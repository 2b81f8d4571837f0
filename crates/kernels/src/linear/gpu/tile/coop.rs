//! Launches of the tiles on matrix units: rows to halves, the product, and the sum of its splits.

use bessemer_hal::{Binding, DeviceError, Dispatch, Result, Slice};
use bytemuck::{Pod, Zeroable};

use super::params::{ADD, BIAS, EXPERTS, PARTIAL, Params, expert_tiles};
use super::plan::{Cut, STEP};
use crate::linear::layout::{Encoding, LinearLayout};
use crate::linear::ops::{Experts, Linear, SlotOrder, Weights, terms};
use crate::shaders::{by_rows, find, launch};
use crate::{Activations, Catalog};

/// Slices of scratch memory begin at multiples of this: as devices want their bindings.
const ALIGNMENT: usize = 256;

/// Size of the matrices that this program has kernels for.
pub(super) fn matrix_size() -> usize {
    if find("tile_coop_affine4_64_128x128").is_some() { 16 } else { 8 }
}

/// Where things lie in scratch memory.
struct Room {
    /// f16 `[input_rows, steps * 32]`.
    halves: usize,
    /// f32 `[input_rows]`.
    factors: usize,
    /// f32 `[splits, rows, out]`.
    parts: usize,
}

impl Room {
    fn new(layout: &LinearLayout, input_rows: usize, rows: usize, cut: Cut) -> Self {
        let width = layout.inp().next_multiple_of(STEP) * 2;
        let parts = if cut.splits > 1 { cut.splits * rows * layout.out() * 4 } else { 0 };
        Self {
            halves: (input_rows * width).max(1).next_multiple_of(ALIGNMENT),
            factors: (input_rows * 4).max(1).next_multiple_of(ALIGNMENT),
            parts,
        }
    }

    fn bytes(&self) -> usize {
        self.halves + self.factors + self.parts
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PrepareParams {
    inp: u32,
    rows: u32,
    terms: u32,
    half_block: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct JoinParams {
    rows: u32,
    out: u32,
    splits: u32,
    flags: u32,
    experts: u32,
    unused: u32,
}

/// A product of either kind.
struct Product<'a> {
    weights: &'a Weights,
    x: &'a Activations,
    out: &'a Slice,
    /// Offsets, order and expert of each slot; of a plain product something that is not read.
    routing: [&'a Slice; 3],
    params: Params,
    rows: usize,
    /// Tiles down the rows.
    tiles: usize,
    cut: Cut,
}

/// Bytes that the launches of [`linear`] pass among themselves.
pub(super) fn linear_scratch(op: &Linear, cut: Cut) -> usize {
    Room::new(&op.weights.layout, op.rows, op.rows, cut).bytes()
}

pub(super) fn linear(
    op: &Linear,
    catalog: &Catalog,
    cut: Cut,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    let unused = &op.weights.packed;
    let product = Product {
        weights: &op.weights,
        x: &op.x,
        out: &op.out,
        routing: [unused; 3],
        params: Params::linear(op),
        rows: op.rows,
        tiles: op.rows.div_ceil(cut.rows),
        cut,
    };
    product.launches(catalog, scratch)
}

/// Bytes that the launches of [`experts`] pass among themselves.
pub(super) fn experts_scratch(op: &Experts, cut: Cut) -> usize {
    let input_rows = Params::experts(op).input_rows as usize;
    Room::new(&op.weights.layout, input_rows, op.slots, cut).bytes()
}

pub(super) fn experts(
    op: &Experts,
    catalog: &Catalog,
    cut: Cut,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    let SlotOrder { offsets, order } = op.slot_order()?;
    let product = Product {
        weights: &op.weights,
        x: &op.x,
        out: &op.out,
        routing: [offsets, order, &op.ids],
        params: Params::experts(op),
        rows: op.slots,
        tiles: expert_tiles(op, cut.rows),
        cut,
    };
    product.launches(catalog, scratch)
}

impl Product<'_> {
    fn launches(&self, catalog: &Catalog, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        let layout = &self.weights.layout;
        let input_rows = self.params.input_rows as usize;
        let room = Room::new(layout, input_rows, self.rows, self.cut);
        let scratch = scratch.filter(|scratch| scratch.size() >= room.bytes() as u64).ok_or_else(|| {
            DeviceError::Usage(format!(
                "a product on matrix units needs {} bytes of scratch memory",
                room.bytes()
            ))
        })?;
        let part = |from: usize, bytes: usize| scratch.slice(from as u64, bytes as u64);
        let halves = part(0, room.halves)?;
        let factors = part(room.halves, room.factors)?;
        let mut launches = vec![self.prepare(catalog, [&halves, &factors])?];
        if self.cut.splits == 1 {
            launches.push(self.multiply(catalog, [&halves, &factors], self.out)?);
        } else {
            let parts = part(room.halves + room.factors, room.parts)?;
            launches.push(self.multiply(catalog, [&halves, &factors], &parts)?);
            launches.push(self.join(catalog, &parts)?);
        }
        Ok(launches)
    }

    fn prepare(&self, catalog: &Catalog, [halves, factors]: [&Slice; 2]) -> Result<Dispatch> {
        let layout = &self.weights.layout;
        let (Activations::Int8(x) | Activations::Int8x2(x)) = self.x else {
            return Err(DeviceError::Usage("a product on matrix units takes int8 rows".into()));
        };
        let params = PrepareParams {
            inp: layout.inp() as u32,
            rows: self.params.input_rows,
            terms: terms(self.x) as u32,
            half_block: layout.block() as u32 / 8,
        };
        let mut bindings = vec![Binding::write_any(halves.clone()), Binding::write_any(factors.clone())];
        bindings.extend([&x.codes, &x.scales].map(|slice| Binding::read(slice.clone())));
        launch(catalog, "tile_prepare_int8", bindings, &params, by_rows(1, self.params.input_rows as usize))
    }

    fn multiply(&self, catalog: &Catalog, [halves, factors]: [&Slice; 2], out: &Slice) -> Result<Dispatch> {
        let Weights { layout, packed, bias } = self.weights;
        let [offsets, order, _] = self.routing;
        let read = [packed, bias.as_ref().unwrap_or(packed), offsets, order];
        let mut bindings: Vec<Binding> = read.map(|slice| Binding::read(slice.clone())).into();
        bindings.push(Binding::write_any(out.clone()));
        bindings.extend([halves, factors].map(|slice| Binding::read(slice.clone())));
        let Cut { rows, outputs, splits } = self.cut;
        let mut params = self.params;
        params.steps = layout.inp().div_ceil(STEP).div_ceil(splits) as u32;
        if splits > 1 {
            params.flags |= PARTIAL;
        }
        let grid = [self.tiles, layout.out().div_ceil(outputs), splits];
        let name = format!("tile_coop_{}_{rows}x{outputs}", weights_name(layout));
        launch(catalog, &name, bindings, &params, grid)
    }

    fn join(&self, catalog: &Catalog, parts: &Slice) -> Result<Dispatch> {
        let Weights { layout, packed, bias } = self.weights;
        let read = [parts, bias.as_ref().unwrap_or(packed), self.routing[2]];
        let mut bindings: Vec<Binding> = read.map(|slice| Binding::read(slice.clone())).into();
        bindings.push(Binding::write_any(self.out.clone()));
        let params = JoinParams {
            rows: self.rows as u32,
            out: layout.out() as u32,
            splits: self.cut.splits as u32,
            flags: self.params.flags & (BIAS | ADD | EXPERTS),
            experts: layout.experts() as u32,
            unused: 0,
        };
        launch(catalog, "tile_join", bindings, &params, by_rows(layout.out().div_ceil(256), self.rows))
    }
}

/// What the kernels of an encoding are called by.
pub(super) fn weights_name(layout: &LinearLayout) -> String {
    match layout.encoding() {
        Encoding::F32 => "f32".into(),
        Encoding::F16 => "f16".into(),
        Encoding::Bf16 => "bf16".into(),
        Encoding::Mxfp4 => "mxfp4_32".into(),
        Encoding::Affine { bits } => format!("affine{bits}_{}", layout.block()),
    }
}
