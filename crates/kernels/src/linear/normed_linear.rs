//! A product of one row that is normalised on the way, without a launch between them.

use bessemer_hal::cpu::{Invocation, Tile};
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};

use super::gpu::product;
use super::int8_tiles::{Int8Params, Int8Tiles};
use super::layout::{LANES, LinearLayout};
use super::multiply::{Input, Write, multiply};
use super::ops::{Operands, ProductParams, Weights, broken, check_int8};
use super::quantise::Int8Rows;
use crate::rms_norm::normalise_row;
use crate::{Activations, Catalog, Isa, Kernel, Op, QuantisedRows, bounds};

/// `out = norm(x) · Wᵀ + bias` for one row, `norm(x)` being `x / √(mean(x²) + eps) · norm`.
///
/// What [`RmsNorm`](crate::rms_norm::RmsNorm) and [`Linear`](super::Linear) are for one row on a GPU, to the bit: see
/// [`NormedLinear::takes`].
#[derive(Clone, Debug)]
pub struct NormedLinear {
    /// f32 `[inp]`.
    pub x: Slice,
    /// f32 `[inp]`: the weight of the norm.
    pub norm: Slice,
    /// Added to the mean of the squares.
    pub eps: f32,
    /// How the normalised row is multiplied.
    pub form: NormedForm,
    /// `[out, inp]`.
    pub weights: Weights,
    /// f32 `[out]`.
    pub out: Slice,
}

/// The form in which a normalised row is multiplied.
#[derive(Clone, Debug)]
pub enum NormedForm {
    /// int8.
    Int8,
    /// int8 in two terms.
    Int8x2,
    /// f32; what the row is in int8, `[inp]`, goes out for other readers.
    F32(QuantisedRows),
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    product: ProductParams,
    eps: f32,
    /// What goes out as int8, or what the row is multiplied as.
    int8: Int8Params,
    /// 1: the row is multiplied as f32.
    f32: u32,
}

static KERNEL: Kernel = Kernel { name: "normed_linear", cpu: kernel };

impl NormedLinear {
    /// Whether a GPU has a launch for it: one row that fits a workgroup, and a matrix of codes with narrow scales and so few
    /// panels that all are at work at once.
    pub fn takes(weights: &LinearLayout, rows: usize, limits: &GpuLimits) -> bool {
        rows == 1 && product::normalises(weights, limits)
    }

    /// Columns that share a scale of what goes out, or of what is multiplied.
    pub(super) fn group(&self) -> usize {
        match &self.form {
            NormedForm::F32(int8) => int8.group,
            NormedForm::Int8 | NormedForm::Int8x2 => self.weights.layout.block(),
        }
    }

    /// Checks every size; the bindings of weights, the row and bias.
    fn check(&self) -> Result<Vec<Binding>> {
        let layout = &self.weights.layout;
        bounds::rule("normed_linear", layout.experts() == 1, || {
            format!(
                "one matrix is multiplied, given a stack of {}: record a norm and experts",
                layout.experts()
            )
        })?;
        bounds::rule("normed_linear", layout.is_quantised(), || {
            format!("{:?} weights have no codes: record a norm and a product", layout.encoding())
        })?;
        bounds::holds::<f32>("normed_linear", "norm", &self.norm, &[layout.inp()])?;
        bounds::holds::<f32>("normed_linear", "out", &self.out, &[layout.out()])?;
        if let NormedForm::F32(int8) = &self.form {
            check_int8("normed_linear", int8, 1, layout.inp())?;
        }
        self.weights.bind("normed_linear", &Activations::F32(self.x.clone()), 1)
    }
}

impl Op for NormedLinear {
    /// One piece: a CPU shares a product among its threads, and normalises once for all of them.
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let layout = &self.weights.layout;
        let mut bindings = self.check()?;
        bindings.push(Binding::read(self.norm.clone()));
        let whole = |cols| Tiling::by_cols(1, cols, cols);
        bindings.push(Binding::write(self.out.clone(), whole(layout.out())));
        let int8 = match &self.form {
            NormedForm::F32(out) => {
                let int8 = Int8Params::one_term(out);
                bindings.extend(int8.bind(out, whole(layout.inp())));
                int8
            }
            NormedForm::Int8 => Int8Params::of(layout.block(), 1),
            NormedForm::Int8x2 => Int8Params::of(layout.block(), 2),
        };
        let x = Activations::F32(self.x.clone());
        let params = Params {
            product: ProductParams::new(&self.weights, &x, 1, Write::Store),
            eps: self.eps,
            int8,
            f32: u32::from(matches!(self.form, NormedForm::F32(_))),
        };
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: whole(layout.out()).grid(),
        })
    }

    /// One launch.
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        product::normed_linear(self, catalog, limits)
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let Params { product, eps, int8, f32 } = invocation.params();
    let Operands { matrix, epilogue, next, .. } = Operands::read(invocation, &product);
    let (inp, isa) = (matrix.layout().inp(), Isa::detect());
    let x = invocation.input::<f32>(1).get(..inp).unwrap_or_default();
    let norm = invocation.input::<f32>(next).get(..inp).unwrap_or_default();
    let mut out = invocation.output::<f32>(next + 1);
    let mut normed = vec![0.0; inp];
    normalise_row(isa, x, norm, eps, &mut normed);

    let panels = 0..out.cols().div_ceil(LANES);
    let done = if f32 == 1 {
        Int8Tiles::take(invocation, next + 2, int8).write(0, &normed);
        let x = Input::F32 { x: &normed, stride: inp };
        multiply(isa, matrix, x, 0..1, panels, &mut out, epilogue)
    } else {
        let (terms, groups) = (int8.terms(), inp / int8.group().max(1));
        let (mut codes, mut scales, mut sums) =
            (vec![0; terms * inp], vec![0.0; terms * groups], vec![0; terms * groups]);
        let tiles = (
            Tile::from_slice(&mut codes, inp, 0..inp),
            Tile::from_slice(&mut scales, groups, 0..groups),
            Tile::from_slice(&mut sums, groups, 0..groups),
        );
        Int8Tiles::over(tiles, int8).write(0, &normed);
        let rows = Int8Rows { codes: &codes, scales: &scales, sums: &sums };
        let x = if terms == 2 { Input::Int8x2(rows) } else { Input::Int8(rows) };
        multiply(isa, matrix, x, 0..1, panels, &mut out, epilogue)
    };
    done.unwrap_or_else(|error| broken(&error.to_string()));
}
