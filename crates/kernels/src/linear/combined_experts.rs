//! The second half of a layer of experts: the last product of each, and their sum, without a launch between them.

use bessemer_hal::cpu::{Invocation, Tile};
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};

use super::gated_experts::by_expert;
use super::gpu::product;
use super::layout::{LANES, LinearLayout};
use super::multiply::{Input, Routing, SlotInput, Write, multiply_experts};
use super::ops::{Operands, ProductParams, Weights, broken};
use super::quantise::{Int8RowMut, Int8Rows, quantise_row};
use super::select::tile_columns;
use crate::{Activations, Catalog, Isa, Kernel, Op, bounds};

/// `out[row] += Σ_j shares[row, j] · (x[row, j] · W[ids[row, j]]ᵀ + bias[ids[row, j]])`, added in the order of `j`; `x`
/// goes through int8 as [`Quantise`](super::Quantise) does it.
///
/// What [`Experts`](super::Experts) and [`Combine`](crate::router::Combine) are for few slots on a GPU: see
/// [`CombinedExperts::takes`]. An id that is no expert adds nothing.
#[derive(Clone, Debug)]
pub struct CombinedExperts {
    /// f32 `[rows, top_k, inp]`.
    pub x: Slice,
    /// `[experts, out, inp]`.
    pub weights: Weights,
    /// u32 `[rows, top_k]`.
    pub ids: Slice,
    /// f32 `[rows, top_k]`: what each result counts.
    pub shares: Slice,
    /// f32 `[rows, out]`.
    pub out: Slice,
    /// Rows.
    pub rows: usize,
    /// Choices of a row.
    pub top_k: usize,
}

static KERNEL: Kernel = Kernel { name: "combined_experts", cpu: kernel };

impl CombinedExperts {
    /// Whether a GPU has a launch for it: slots are few, the weights have codes with narrow scales, and the choices of a
    /// row fit the memory of a workgroup.
    pub fn takes(weights: &LinearLayout, rows: usize, top_k: usize, limits: &GpuLimits) -> bool {
        product::combines(weights, rows, top_k, limits)
    }

    /// Checks every size; the bindings of weights, activations and bias.
    fn check(&self) -> Result<Vec<Binding>> {
        let Self { rows, top_k, .. } = *self;
        let layout = &self.weights.layout;
        bounds::rule("combined_experts", top_k > 0, || "a row needs at least one result".into())?;
        bounds::rule("combined_experts", layout.is_quantised(), || {
            format!("{:?} weights do not take int8 rows; record experts and combine", layout.encoding())
        })?;
        bounds::holds::<u32>("combined_experts", "ids", &self.ids, &[rows, top_k])?;
        bounds::holds::<f32>("combined_experts", "shares", &self.shares, &[rows, top_k])?;
        bounds::holds::<f32>("combined_experts", "out", &self.out, &[rows, layout.out()])?;
        self.weights.bind("combined_experts", &Activations::F32(self.x.clone()), rows * top_k)
    }
}

impl Op for CombinedExperts {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, top_k, .. } = *self;
        let layout = &self.weights.layout;
        let mut bindings = self.check()?;
        bindings.extend([&self.ids, &self.shares].map(|slice| Binding::read(slice.clone())));
        let columns = tile_columns(layout, rows * top_k, catalog.workers());
        let tiling = Tiling::by_cols(rows, layout.out(), columns);
        bindings.push(Binding::write(self.out.clone(), tiling));
        let x = Activations::F32(self.x.clone());
        let params = ProductParams::new(&self.weights, &x, rows, Write::Add).of_tokens(top_k);
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: tiling.grid(),
        })
    }

    /// One launch.
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        product::combined_experts(self, catalog, limits)
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let params: ProductParams = invocation.params();
    let Operands { matrix, epilogue, next, .. } = Operands::read(invocation, &params);
    let (layout, isa) = (*matrix.layout(), Isa::detect());
    let (top_k, block) = (params.top_k() as usize, layout.block());
    let slots = params.rows() * top_k;
    let x = invocation.input::<f32>(1).get(..slots * layout.inp()).unwrap_or_default();
    let ids = invocation.input::<u32>(next).get(..slots).unwrap_or_default();
    let shares = invocation.input::<f32>(next + 1);
    let mut out = invocation.output::<f32>(next + 2);

    let (mut codes, blocks) = (vec![0; x.len()], x.len() / block);
    let (mut scales, mut sums) = (vec![0.0; blocks], vec![0; blocks]);
    let all = Int8RowMut { codes: &mut codes, scales: &mut scales, sums: &mut sums };
    quantise_row(isa, x, block, all).unwrap_or_else(|error| broken(&error.to_string()));
    let x = Input::Int8(Int8Rows { codes: &codes, scales: &scales, sums: &sums });

    let (offsets, order) = by_expert(ids, layout.experts());
    let routing = Routing { offsets: &offsets, order: &order, input: SlotInput::Slot };
    let (cols, first) = (out.cols(), out.first_col() / LANES);
    let mut y = vec![0.0; slots * cols];
    let mut tile = Tile::from_slice(&mut y, cols, 0..cols);
    let epilogue = super::Epilogue { write: Write::Store, ..epilogue };
    multiply_experts(isa, matrix, x, routing, first..first + cols.div_ceil(LANES), &mut tile, epilogue)
        .unwrap_or_else(|error| broken(&error.to_string()));
    for row in 0..out.rows() {
        let out = out.row_mut(row);
        for slot in row * top_k..(row + 1) * top_k {
            if (ids[slot] as usize) < layout.experts() {
                for (out, y) in out.iter_mut().zip(&y[slot * cols..]) {
                    *out = y.mul_add(shares[slot], *out);
                }
            }
        }
    }
}
