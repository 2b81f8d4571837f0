//! Matrix products as recorded operations.
//!
//! Each is a struct of buffers and shapes; [`Op::dispatch`] checks every size once, so that kernels run unchecked.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, DeviceError, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

use super::gpu::{product, rowwise};
use super::int8_tiles::{Int8Params, Int8Tiles};
use super::layout::{LinearError, LinearLayout};
use super::multiply::{Epilogue, Input, Matrix, Routing, SlotInput, Write, multiply, multiply_experts};
use super::params::LayoutParams;
use super::quantise::Int8Rows;
use super::select::tile_columns;
use super::unpack::unpack_row;
use crate::{Activations, Catalog, Isa, Kernel, Op, QuantisedRows, bounds};

impl From<LinearError> for DeviceError {
    fn from(error: LinearError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// A packed matrix, or a stack of them, in a buffer.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Shape and encoding.
    pub layout: LinearLayout,
    /// [`LinearLayout::bytes`] bytes as [`super::pack`] wrote them.
    pub packed: Slice,
    /// f32 `[experts, out]`, added to the product.
    pub bias: Option<Slice>,
}

impl Weights {
    fn check(&self, op: &str) -> Result<()> {
        let Self { layout, packed, bias } = self;
        bounds::holds::<u8>(op, "weights", packed, &[layout.bytes()])?;
        bias.iter()
            .try_for_each(|bias| bounds::holds::<f32>(op, "bias", bias, &[layout.experts(), layout.out()]))
    }

    /// Bindings of weights, activations and bias, in the order in which [`Operands::read`] takes them.
    pub(super) fn bind(&self, op: &str, x: &Activations, rows: usize) -> Result<Vec<Binding>> {
        self.check(op)?;
        let (layout, inp) = (&self.layout, self.layout.inp());
        let mut bindings = vec![Binding::read(self.packed.clone())];
        let codes = rows * terms(x);
        match x {
            Activations::F32(x) => {
                bounds::holds::<f32>(op, "x", x, &[rows, inp])?;
                bindings.push(Binding::read(x.clone()));
            }
            Activations::Int8(x) | Activations::Int8x2(x) => {
                bounds::rule(op, layout.is_quantised() && x.group == layout.block(), || {
                    format!(
                        "int8 activations in groups of {} meet {:?} weights, which take groups of {}: quantise for this \
                         layout, or give f32",
                        x.group,
                        layout.encoding(),
                        layout.block()
                    )
                })?;
                check_int8(op, x, codes, inp)?;
                bindings.extend([&x.codes, &x.scales, &x.sums].map(|slice| Binding::read(slice.clone())));
            }
        }
        bindings.extend(self.bias.iter().map(|bias| Binding::read(bias.clone())));
        Ok(bindings)
    }
}

/// Rows of codes that make a row.
pub(super) fn terms(x: &Activations) -> usize {
    if matches!(x, Activations::Int8x2(_)) { 2 } else { 1 }
}

pub(crate) fn check_int8(op: &str, x: &QuantisedRows, rows: usize, cols: usize) -> Result<()> {
    bounds::rule(op, matches!(x.group, 32 | 64) && cols.is_multiple_of(x.group), || {
        format!(
            "{cols} columns in groups of {} cannot be int8: groups have 32 or 64, and divide the columns",
            x.group
        )
    })?;
    let groups = cols / x.group;
    bounds::holds::<i8>(op, "codes", &x.codes, &[rows, cols])?;
    bounds::holds::<f32>(op, "scales", &x.scales, &[rows, groups])?;
    bounds::holds::<i32>(op, "sums", &x.sums, &[rows, groups])
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ProductParams {
    layout: LayoutParams,
    rows: u32,
    /// Rows of codes that make a row of int8 activations; 0 for f32.
    terms: u32,
    bias: u32,
    add: u32,
    /// Experts: slots that read one row; 0 when each reads its own.
    top_k: u32,
    unused: u32,
}

impl ProductParams {
    pub(super) fn new(weights: &Weights, x: &Activations, rows: usize, write: Write) -> Self {
        Self {
            layout: LayoutParams::new(&weights.layout),
            rows: rows as u32,
            terms: match x {
                Activations::F32(_) => 0,
                _ => terms(x) as u32,
            },
            bias: u32::from(weights.bias.is_some()),
            add: u32::from(write == Write::Add),
            top_k: 0,
            unused: 0,
        }
    }

    /// The same where `top_k` slots read one row.
    pub(super) fn of_tokens(self, top_k: usize) -> Self {
        Self { top_k: top_k as u32, ..self }
    }

    /// Rows of the result.
    pub(super) fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Slots that read one row; 0 when each reads its own.
    pub(super) fn top_k(&self) -> u32 {
        self.top_k
    }
}

/// Operands of a product, out of an invocation.
pub(super) struct Operands<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) x: Input<'a>,
    pub(super) epilogue: Epilogue<'a>,
    /// The first binding that is none of these.
    pub(super) next: usize,
}

impl<'a> Operands<'a> {
    pub(super) fn read(invocation: &Invocation<'a>, params: &ProductParams) -> Self {
        let layout = params.layout.layout().unwrap_or_else(|| broken("parameters hold a layout"));
        let packed = invocation.input::<u8>(0).get(..layout.bytes()).unwrap_or_default();
        let matrix = Matrix::new(layout, packed).unwrap_or_else(|error| broken(&error.to_string()));
        let (x, next) = if params.terms > 0 {
            let rows = Int8Rows {
                codes: invocation.input(1),
                scales: invocation.input(2),
                sums: invocation.input(3),
            };
            (if params.terms == 2 { Input::Int8x2(rows) } else { Input::Int8(rows) }, 4)
        } else {
            (Input::F32 { x: invocation.input(1), stride: layout.inp() }, 2)
        };
        let bias = (params.bias == 1).then(|| {
            invocation.input::<f32>(next).get(..layout.experts() * layout.out()).unwrap_or_default()
        });
        let write = if params.add == 1 { Write::Add } else { Write::Store };
        Self { matrix, x, epilogue: Epilogue { bias, write }, next: next + params.bias as usize }
    }
}

#[cold]
pub(super) fn broken(rule: &str) -> ! {
    panic!("kernel contract broken: {rule}")
}

/// `out = x · Wᵀ + bias`, or `out += …`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[rows, inp]`.
    pub x: Activations,
    /// `[out, inp]`.
    pub weights: Weights,
    /// f32 `[rows, out]`.
    pub out: Slice,
    /// Rows.
    pub rows: usize,
    /// Replace `out` or add to it.
    pub write: Write,
}

static LINEAR: Kernel = Kernel { name: "linear", cpu: linear };

impl Linear {
    /// Checks every size; the bindings of weights, activations and bias.
    fn check(&self) -> Result<Vec<Binding>> {
        let (layout, rows) = (&self.weights.layout, self.rows);
        bounds::rule("linear", layout.experts() == 1, || {
            format!("one matrix is multiplied, given a stack of {}: use experts", layout.experts())
        })?;
        bounds::holds::<f32>("linear", "out", &self.out, &[rows, layout.out()])?;
        self.weights.bind("linear", &self.x, rows)
    }
}

impl Op for Linear {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let (layout, rows) = (&self.weights.layout, self.rows);
        let mut bindings = self.check()?;
        let tiling = Tiling::by_cols(rows, layout.out(), tile_columns(layout, rows, catalog.workers()));
        bindings.push(Binding::write(self.out.clone(), tiling));
        Ok(Dispatch {
            pipeline: catalog.pipeline(&LINEAR)?,
            bindings,
            params: bytemuck::bytes_of(&ProductParams::new(&self.weights, &self.x, rows, self.write))
                .to_vec(),
            groups: tiling.grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        product::linear(self, catalog, limits, scratch)
    }

    fn gpu_scratch(&self, limits: &GpuLimits) -> usize {
        product::linear_scratch(self, limits)
    }
}

fn linear(invocation: &mut Invocation<'_>) {
    let params: ProductParams = invocation.params();
    let Operands { matrix, x, epilogue, next } = Operands::read(invocation, &params);
    let mut y = invocation.output::<f32>(next);
    let panels = panels_of(&y);
    multiply(Isa::detect(), matrix, x, 0..params.rows as usize, panels, &mut y, epilogue)
        .unwrap_or_else(|error| broken(&error.to_string()));
}

fn panels_of(tile: &bessemer_hal::cpu::Tile<'_, f32>) -> std::ops::Range<usize> {
    let first = tile.first_col() / super::LANES;
    first..first + tile.cols().div_ceil(super::LANES)
}

/// `out[slot] = x[input(slot)] · W[expert(slot)]ᵀ + bias[expert(slot)]`. A slot that no expert lists keeps its row.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[rows, inp]`: a row per token or per slot.
    pub x: Activations,
    /// `[experts, out, inp]`.
    pub weights: Weights,
    /// u32 `[slots]`: the expert of each slot.
    pub ids: Slice,
    /// The same by expert; needed where [`Experts::reads_order`] says so.
    pub order: Option<SlotOrder>,
    /// What a slot reads.
    pub input: SlotInput,
    /// f32 `[slots, out]`.
    pub out: Slice,
    /// Tokens times experts per token.
    pub slots: usize,
}

/// The slots of each expert, as [`ExpertSort`](crate::router::ExpertSort) writes them.
#[derive(Clone, Debug)]
pub struct SlotOrder {
    /// u32 `[experts + 1]`: expert `e` works on `order[offsets[e]..offsets[e + 1]]`.
    pub offsets: Slice,
    /// u32 `[slots]`: slots, sorted by expert.
    pub order: Slice,
}

static EXPERTS: Kernel = Kernel { name: "experts", cpu: experts };

impl Experts {
    /// Whether a product of so many slots with a stack of so many matrices needs its slots by expert, on a GPU or on the
    /// CPU device. Where it does not, `ids` are enough, and nobody has to sort.
    pub fn reads_order(slots: usize, experts: usize, gpu: Option<&GpuLimits>) -> bool {
        gpu.is_none_or(|limits| product::reads_order(slots, experts, limits))
    }

    /// The order, for a device that reads it.
    pub(super) fn slot_order(&self) -> Result<&SlotOrder> {
        self.order.as_ref().ok_or_else(|| {
            DeviceError::Usage("experts: this product reads its slots by expert: sort them before it".into())
        })
    }

    /// Checks every size; the bindings of weights, activations and bias.
    fn check(&self) -> Result<Vec<Binding>> {
        let (layout, slots) = (&self.weights.layout, self.slots);
        let rows = match self.input {
            SlotInput::Token { top_k } => slots.div_ceil(top_k.max(1) as usize),
            SlotInput::Slot => slots,
        };
        bounds::holds::<u32>("experts", "ids", &self.ids, &[slots])?;
        if let Some(SlotOrder { offsets, order }) = &self.order {
            bounds::holds::<u32>("experts", "offsets", offsets, &[layout.experts() + 1])?;
            bounds::holds::<u32>("experts", "order", order, &[slots])?;
        }
        bounds::holds::<f32>("experts", "out", &self.out, &[slots, layout.out()])?;
        self.weights.bind("experts", &self.x, rows)
    }
}

impl Op for Experts {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let (layout, slots) = (&self.weights.layout, self.slots);
        let top_k = match self.input {
            SlotInput::Token { top_k } => top_k.max(1),
            SlotInput::Slot => 0,
        };
        let mut bindings = self.check()?;
        let SlotOrder { offsets, order } = self.slot_order()?;
        bindings.extend([offsets, order].map(|slice| Binding::read(slice.clone())));
        let tiling = Tiling::by_cols(slots, layout.out(), tile_columns(layout, slots, catalog.workers()));
        bindings.push(Binding::write(self.out.clone(), tiling));
        let params =
            ProductParams { top_k, ..ProductParams::new(&self.weights, &self.x, slots, Write::Store) };
        Ok(Dispatch {
            pipeline: catalog.pipeline(&EXPERTS)?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: tiling.grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        product::experts(self, catalog, limits, scratch)
    }

    fn gpu_scratch(&self, limits: &GpuLimits) -> usize {
        product::experts_scratch(self, limits)
    }
}

fn experts(invocation: &mut Invocation<'_>) {
    let params: ProductParams = invocation.params();
    let Operands { matrix, x, epilogue, next } = Operands::read(invocation, &params);
    let offsets = invocation.input::<u32>(next).get(..matrix.layout().experts() + 1).unwrap_or_default();
    let order = invocation.input::<u32>(next + 1).get(..params.rows as usize).unwrap_or_default();
    let input = match params.top_k {
        0 => SlotInput::Slot,
        top_k => SlotInput::Token { top_k },
    };
    let mut y = invocation.output::<f32>(next + 2);
    let panels = panels_of(&y);
    multiply_experts(Isa::detect(), matrix, x, Routing { offsets, order, input }, panels, &mut y, epilogue)
        .unwrap_or_else(|error| broken(&error.to_string()));
}

/// Activations to int8: see [`super::quantise_row`].
#[derive(Clone, Debug)]
pub struct Quantise {
    /// f32 `[rows, dim]`.
    pub x: Slice,
    /// `[rows, dim]` as [`Activations::Int8`] or [`Activations::Int8x2`].
    pub out: Activations,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub dim: usize,
}

static QUANTISE: Kernel = Kernel { name: "quantise", cpu: quantise };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct QuantiseParams {
    dim: u32,
    int8: Int8Params,
}

impl Quantise {
    /// The rows that it writes.
    fn check(&self) -> Result<&QuantisedRows> {
        let Self { rows, dim, .. } = *self;
        bounds::holds::<f32>("quantise", "x", &self.x, &[rows, dim])?;
        let (Activations::Int8(out) | Activations::Int8x2(out)) = &self.out else {
            return Err(DeviceError::Usage("quantise: out is f32; give it int8 activations".into()));
        };
        check_int8("quantise", out, rows * terms(&self.out), dim)?;
        Ok(out)
    }
}

impl Op for Quantise {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, dim, .. } = *self;
        let (out, int8) = (self.check()?, Int8Params::new(&self.out));
        let tiling = Tiling::by_rows(rows, dim, bounds::rows_per_group(rows, dim, catalog.workers()));
        let mut bindings = vec![Binding::read(self.x.clone())];
        bindings.extend(int8.bind(out, tiling));
        Ok(Dispatch {
            pipeline: catalog.pipeline(&QUANTISE)?,
            bindings,
            params: bytemuck::bytes_of(&QuantiseParams { dim: dim as u32, int8 }).to_vec(),
            groups: tiling.grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        let out = self.check()?;
        Ok(vec![rowwise::quantise(self, out, terms(&self.out), catalog)?])
    }
}

fn quantise(invocation: &mut Invocation<'_>) {
    let QuantiseParams { dim, int8 } = invocation.params();
    let x = invocation.input::<f32>(0);
    let mut out = Int8Tiles::take(invocation, 1, int8);
    for (row, x) in (0..out.rows()).zip(x.chunks_exact(dim.max(1) as usize).skip(out.first_row())) {
        out.write(row, x);
    }
}

/// Rows of a packed matrix by index: `out[i] = scale · W[ids[i]]`, zeros where the id leaves the matrix.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// u32 `[rows]`.
    pub ids: Slice,
    /// `[out, inp]`: `out` is the vocabulary.
    pub weights: Weights,
    /// f32 `[rows, inp]`.
    pub out: Slice,
    /// Rows.
    pub rows: usize,
    /// Applied to every value; 1 where the model scales nothing.
    pub scale: f32,
}

static EMBEDDING: Kernel = Kernel { name: "embedding", cpu: embedding };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbeddingParams {
    layout: LayoutParams,
    scale: f32,
    unused: u32,
}

impl Embedding {
    fn check(&self) -> Result<()> {
        self.weights.check("embedding")?;
        bounds::holds::<u32>("embedding", "ids", &self.ids, &[self.rows])?;
        bounds::holds::<f32>("embedding", "out", &self.out, &[self.rows, self.weights.layout.inp()])
    }
}

impl Op for Embedding {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let (layout, rows) = (&self.weights.layout, self.rows);
        self.check()?;
        let tile_rows = bounds::rows_per_group(rows, 4 * layout.inp(), catalog.workers());
        let params = EmbeddingParams { layout: LayoutParams::new(layout), scale: self.scale, unused: 0 };
        Ok(Dispatch {
            pipeline: catalog.pipeline(&EMBEDDING)?,
            bindings: vec![
                Binding::read(self.weights.packed.clone()),
                Binding::read(self.ids.clone()),
                Binding::write(self.out.clone(), Tiling::by_rows(rows, layout.inp(), tile_rows)),
            ],
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: line(rows.div_ceil(tile_rows)),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        Ok(vec![rowwise::embedding(self, catalog)?])
    }
}

fn embedding(invocation: &mut Invocation<'_>) {
    let params: EmbeddingParams = invocation.params();
    let layout = params.layout.layout().unwrap_or_else(|| broken("parameters hold a layout"));
    let packed = invocation.input::<u8>(0).get(..layout.bytes()).unwrap_or_default();
    let ids = invocation.input::<u32>(1);
    let mut out = invocation.output::<f32>(2);
    for (row, &id) in (0..out.rows()).zip(ids.iter().skip(out.first_row())) {
        let to = out.row_mut(row);
        if unpack_row(&layout, packed, id as usize, to).is_err() {
            to.fill(0.0);
        }
        if params.scale != 1.0 {
            to.iter_mut().for_each(|v| *v *= params.scale);
        }
    }
}
