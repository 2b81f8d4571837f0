//! Matrix products over panels and rows: checks, blocking, and the way to the kernels.
//!
//! - Everything is *checked here*, once a call; below, kernels run on raw pointers.
//! - Rows go in *blocks* whose activations stay in the L2 cache while all panels of the call pass by.
//! - Up to four rows take the streaming kernels, more the sweeping ones; *which one never shows in the bits*: see
//!   the formulas in `int8` and `float`.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use bessemer_hal::cpu::Tile;

use super::codes::{Bits, Fp4, with_codes};
use super::float::{Dequantised, Exact, Partial, PlainBf16, PlainF16, PlainF32, Swept};
use super::int8::{Few, Int8Row, Many, Panels};
use super::layout::{Encoding, LANES, LinearError, LinearLayout};
use super::quantise::Int8Rows;
use super::simd::{Job, Level};
use crate::Isa;

/// A packed matrix, or a stack of them.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    layout: LinearLayout,
    packed: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// `packed` as [`super::pack`] wrote it.
    ///
    /// # Errors
    /// When its length is not the layout's.
    pub fn new(layout: LinearLayout, packed: &'a [u8]) -> Result<Self, LinearError> {
        if packed.len() != layout.bytes() {
            return Err(LinearError::new(format!(
                "a packed matrix has {} bytes, its layout {}: pack it with this layout",
                packed.len(),
                layout.bytes()
            )));
        }
        Ok(Self { layout, packed })
    }

    /// Shape and encoding.
    pub fn layout(&self) -> &LinearLayout {
        &self.layout
    }
}

/// What a matrix is multiplied with.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Rows of `inp` values, one every `stride`.
    F32 {
        /// The values.
        x: &'a [f32],
        /// Values from row to row.
        stride: usize,
    },
    /// Rows quantised in blocks of [`LinearLayout::block`] inputs; quantised weights only.
    Int8(Int8Rows<'a>),
    /// The same with two rows of codes for each row: the product of row `r` is the sum of those of `2r` and `2r + 1`.
    Int8x2(Int8Rows<'a>),
}

impl Input<'_> {
    /// Whole rows that are there for this layout.
    fn rows(&self, layout: &LinearLayout) -> Result<usize, LinearError> {
        let inp = layout.inp();
        match self {
            Self::F32 { stride, .. } if *stride < inp || *stride == 0 => Err(LinearError::new(format!(
                "rows of {inp} inputs cannot stand {stride} values apart: the stride is at least the inputs"
            ))),
            Self::F32 { x, stride } if x.len() >= inp => Ok((x.len() - inp) / stride + 1),
            Self::F32 { .. } => Ok(0),
            Self::Int8(_) | Self::Int8x2(_) if !layout.is_quantised() || inp == 0 => {
                Err(LinearError::new(format!(
                    "int8 activations need quantised weights, given {:?} with {inp} inputs: use f32 activations",
                    layout.encoding()
                )))
            }
            Self::Int8(x) | Self::Int8x2(x) => {
                let blocks = inp / layout.block();
                let rows = (x.codes.len() / inp).min(x.scales.len() / blocks).min(x.sums.len() / blocks);
                Ok(rows / self.terms())
            }
        }
    }

    /// Rows of codes that make a row.
    fn terms(&self) -> usize {
        if matches!(self, Self::Int8x2(_)) { 2 } else { 1 }
    }
}

/// Whether results replace the output or join it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Write {
    /// `y = result`.
    #[default]
    Store,
    /// `y = y + result`: the residual stream.
    Add,
}

/// What happens to `x · Wᵀ` on its way out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to every row: `out` values for each matrix of the stack.
    pub bias: Option<&'a [f32]>,
    /// Replace or add.
    pub write: Write,
}

/// Where the row of a slot comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotInput {
    /// Slot `token · top_k + j` reads row `token`.
    Token {
        /// Experts per token.
        top_k: u32,
    },
    /// Slot `i` reads row `i`.
    Slot,
}

/// Which expert works on which slots. Slots and inputs that do not exist are skipped.
#[derive(Clone, Copy, Debug)]
pub struct Routing<'a> {
    /// Expert `e` works on `order[offsets[e]..offsets[e + 1]]`.
    pub offsets: &'a [u32],
    /// Slots, sorted by expert. A slot is a row of the output.
    pub order: &'a [u32],
    /// What a slot reads.
    pub input: SlotInput,
}

/// Rows of a product as (input row, output row).
type RowPair = (usize, usize);

/// Rows in a block at most.
const ROW_BLOCK: usize = 128;
/// Bytes of activations that may stay in a core's L2 cache beside the weights that pass.
const L2_SHARE: usize = 512 * 1024;
/// Rows up to which weights stream by once.
const FEW: usize = 4;
/// Panels whose results are collected before they are written out.
const PANEL_BATCH: usize = 16;

/// `y[r] = x[r] · Wᵀ` for `rows` and the outputs of `panels`, by matrix 0 of the stack. `y` covers exactly these
/// outputs as columns; its rows are counted as those of `x`.
///
/// # Errors
/// When rows, panels, activations, tile or bias do not fit each other.
pub fn multiply(
    isa: Isa,
    matrix: Matrix<'_>,
    x: Input<'_>,
    rows: Range<usize>,
    panels: Range<usize>,
    y: &mut Tile<'_, f32>,
    epilogue: Epilogue<'_>,
) -> Result<(), LinearError> {
    let product = Product::new(isa, matrix, x, panels, y, epilogue)?;
    let available = product.input_rows.min(y.rows());
    if rows.start > rows.end || rows.end > available || matrix.layout.experts() == 0 {
        return Err(LinearError::new(format!(
            "rows {rows:?} of {available} that input and output both have"
        )));
    }
    product.run(0, rows.len(), |i| Some((rows.start + i, rows.start + i)), y);
    Ok(())
}

/// Each slot's row times its expert's matrix: `y[slot] = x[input(slot)] · W[expert]ᵀ`, for the outputs of `panels`.
///
/// # Errors
/// As [`multiply`], and when the offsets do not belong to as many experts as the stack has.
pub fn multiply_experts(
    isa: Isa,
    matrix: Matrix<'_>,
    x: Input<'_>,
    routing: Routing<'_>,
    panels: Range<usize>,
    y: &mut Tile<'_, f32>,
    epilogue: Epilogue<'_>,
) -> Result<(), LinearError> {
    let product = Product::new(isa, matrix, x, panels, y, epilogue)?;
    if routing.offsets.len() != matrix.layout.experts() + 1 {
        return Err(LinearError::new(format!(
            "{} offsets for {} experts: one more than experts is needed",
            routing.offsets.len(),
            matrix.layout.experts()
        )));
    }
    for (expert, ends) in routing.offsets.windows(2).enumerate() {
        let end = (ends[1] as usize).min(routing.order.len());
        let slots = &routing.order[(ends[0] as usize).min(end)..end];
        let rows = y.rows();
        let pair = |i: usize| {
            let slot = slots[i] as usize;
            let input = match routing.input {
                SlotInput::Token { top_k } => slot / top_k.max(1) as usize,
                SlotInput::Slot => slot,
            };
            (slot < rows && input < product.input_rows).then_some((input, slot))
        };
        product.run(expert, slots.len(), pair, y);
    }
    Ok(())
}

struct Product<'a> {
    level: Level,
    layout: LinearLayout,
    packed: &'a [u8],
    x: Input<'a>,
    input_rows: usize,
    panels: Range<usize>,
    epilogue: Epilogue<'a>,
}

impl<'a> Product<'a> {
    fn new(
        isa: Isa,
        matrix: Matrix<'a>,
        x: Input<'a>,
        panels: Range<usize>,
        y: &Tile<'_, f32>,
        epilogue: Epilogue<'a>,
    ) -> Result<Self, LinearError> {
        let Matrix { layout, packed } = matrix;
        let first = panels.start.saturating_mul(LANES).min(layout.out());
        let outputs = panels.end.saturating_mul(LANES).min(layout.out()).saturating_sub(first);
        if panels.start > panels.end || panels.end > layout.panels() || y.cols() != outputs {
            return Err(LinearError::new(format!(
                "panels {panels:?} of {} have {outputs} outputs, the tile {} columns: cut tiles at multiples of {LANES}",
                layout.panels(),
                y.cols()
            )));
        }
        let biases = layout.experts() * layout.out();
        if let Some(bias) = epilogue.bias.filter(|bias| bias.len() != biases) {
            return Err(LinearError::new(format!(
                "a bias of {} values, the matrix has {biases} outputs",
                bias.len()
            )));
        }
        let input_rows = x.rows(&layout)?;
        Ok(Self { level: Level::of(isa), layout, packed, x, input_rows, panels, epilogue })
    }

    /// Works on `count` rows of one expert in blocks.
    fn run(
        &self,
        expert: usize,
        count: usize,
        pair: impl Fn(usize) -> Option<RowPair>,
        y: &mut Tile<'_, f32>,
    ) {
        if count == 0 {
            return;
        }
        let terms = self.x.terms();
        let row_bytes = self.layout.inp() * if matches!(self.x, Input::F32 { .. }) { 4 } else { terms };
        let block = (L2_SHARE / row_bytes.max(1)).next_multiple_of(8).clamp(16, ROW_BLOCK / terms);
        let mut pairs = [(0, 0); ROW_BLOCK];
        for first in (0..count).step_by(block) {
            let mut len = 0;
            for pair in (first..count.min(first + block)).filter_map(&pair) {
                pairs[len] = pair;
                len += 1;
            }
            match self.x {
                Input::F32 { x, stride } => self.block_f32(expert, x, stride, &pairs[..len], y),
                Input::Int8(x) => self.block_int8::<1>(expert, x, &pairs[..len], y),
                Input::Int8x2(x) => self.block_int8::<2>(expert, x, &pairs[..len], y),
            }
        }
    }

    /// `TERMS` rows of codes make a row, and at most [`ROW_BLOCK`] of them a block.
    fn block_int8<const TERMS: usize>(
        &self,
        expert: usize,
        x: Int8Rows<'_>,
        pairs: &[RowPair],
        y: &mut Tile<'_, f32>,
    ) {
        let (inp, blocks) = (self.layout.inp(), self.layout.inp() / self.layout.block());
        let row = |index: usize| {
            let input = pairs[index / TERMS].0 * TERMS + index % TERMS;
            Int8Row {
                codes: x.codes[input * inp..(input + 1) * inp].as_ptr(),
                scales: x.scales[input * blocks..(input + 1) * blocks].as_ptr(),
                sums: x.sums[input * blocks..(input + 1) * blocks].as_ptr(),
            }
        };
        let count = pairs.len() * TERMS;
        macro_rules! few {
            ($code:ty, $chunks:literal) => {
                match count {
                    1 => self.few::<$code, $chunks, 1, TERMS>(expert, [row(0)], pairs, y),
                    2 => self.few::<$code, $chunks, 2, TERMS>(expert, [row(0), row(1)], pairs, y),
                    // The fourth result is dropped: three rows would not be faster.
                    3 => self.few::<$code, $chunks, 4, TERMS>(expert, [0, 1, 2, 2].map(row), pairs, y),
                    _ => self.few::<$code, $chunks, 4, TERMS>(expert, [0, 1, 2, 3].map(row), pairs, y),
                }
            };
        }
        if count <= FEW {
            with_codes!(self.layout, few);
            return;
        }
        let mut rows = [row(0); ROW_BLOCK];
        rows.iter_mut().enumerate().take(count).for_each(|(index, to)| *to = row(index));
        let mut out = [[0.0; LANES]; ROW_BLOCK];
        let (rows, out) = (&rows[..count], &mut out[..count]);
        for panel in self.panels.clone() {
            out.fill([0.0; LANES]);
            let panels = self.quantised_panels(expert, panel..panel + 1);
            macro_rules! many {
                ($code:ty, $chunks:literal) => {
                    // SAFETY: the panel and the rows were sliced out above, and there are as many outputs as rows.
                    unsafe { self.level.run(Many::<$code, $chunks> { panel: panels, rows, out, code: PhantomData }) }
                };
            }
            with_codes!(self.layout, many);
            self.write(expert, panel, add_terms::<TERMS>(out), pairs, y);
        }
    }

    fn few<C, const CHUNKS: usize, const ROWS: usize, const TERMS: usize>(
        &self,
        expert: usize,
        rows: [Int8Row; ROWS],
        pairs: &[RowPair],
        y: &mut Tile<'_, f32>,
    ) where
        Few<C, CHUNKS, ROWS>: Job<Output = ()>,
    {
        // An expert's share of a launch may be a panel or two: clearing a whole batch would cost as much as its work.
        let mut out = [const { MaybeUninit::<[f32; LANES]>::uninit() }; PANEL_BATCH * FEW];
        for first in self.panels.clone().step_by(PANEL_BATCH) {
            let batch = first..self.panels.end.min(first + PANEL_BATCH);
            let panels = self.quantised_panels(expert, batch.clone());
            // SAFETY: panels and rows were sliced out of the checked slices; `out` holds a full batch, and the job
            // writes the results of every panel and row.
            let out = unsafe {
                self.level.run(Few::<C, CHUNKS, ROWS> {
                    panels,
                    rows,
                    out: out.as_mut_ptr().cast(),
                    code: PhantomData,
                });
                std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<[f32; LANES]>(), batch.len() * ROWS)
            };
            for (panel, out) in batch.zip(out.chunks_exact_mut(ROWS)) {
                self.write(expert, panel, add_terms::<TERMS>(out), pairs, y);
            }
        }
    }

    fn block_f32(&self, expert: usize, x: &[f32], stride: usize, pairs: &[RowPair], y: &mut Tile<'_, f32>) {
        let row = |&(input, _): &RowPair| x[input * stride..][..self.layout.inp()].as_ptr();
        if !self.layout.is_quantised() && pairs.len() <= FEW {
            macro_rules! exact {
                ($weight:ty) => {
                    match pairs {
                        [a] => self.exact::<$weight, 1>(expert, [row(a)], pairs, y),
                        [a, b] => self.exact::<$weight, 2>(expert, [row(a), row(b)], pairs, y),
                        [a, b, c] => {
                            self.exact::<$weight, 4>(expert, [row(a), row(b), row(c), row(c)], pairs, y)
                        }
                        [a, b, c, d] => {
                            self.exact::<$weight, 4>(expert, [row(a), row(b), row(c), row(d)], pairs, y)
                        }
                        _ => {}
                    }
                };
            }
            match self.layout.encoding() {
                Encoding::F16 => exact!(PlainF16),
                Encoding::Bf16 => exact!(PlainBf16),
                _ => exact!(PlainF32),
            }
            return;
        }
        let mut rows = [std::ptr::null(); ROW_BLOCK];
        rows.iter_mut().zip(pairs).for_each(|(to, pair)| *to = row(pair));
        let mut partial: [Partial; ROW_BLOCK] = [[[0.0; LANES]; 2]; ROW_BLOCK];
        let mut out = [[0.0; LANES]; ROW_BLOCK];
        let (rows, partial) = (&rows[..pairs.len()], &mut partial[..pairs.len()]);
        for panel in self.panels.clone() {
            partial.fill([[0.0; LANES]; 2]);
            let panels = self.quantised_panels(expert, panel..panel + 1);
            macro_rules! dequantised {
                ($code:ty, $chunks:literal) => {
                    // SAFETY: the panel and the rows were sliced out above, and there are as many sums as rows.
                    unsafe {
                        self.level.run(Dequantised::<$code, $chunks> {
                            panel: panels,
                            rows,
                            out: partial,
                            code: PhantomData,
                        })
                    }
                };
            }
            macro_rules! swept {
                ($weight:ty) => {{
                    let panel = self.packed[self.layout.panel_range(expert, panel)].as_ptr();
                    let inputs = self.layout.inp();
                    let job = Swept::<$weight> { panel, inputs, rows, out: partial, weight: PhantomData };
                    // SAFETY: as above.
                    unsafe { self.level.run(job) }
                }};
            }
            match self.layout.encoding() {
                Encoding::F32 => swept!(PlainF32),
                Encoding::F16 => swept!(PlainF16),
                Encoding::Bf16 => swept!(PlainBf16),
                _ => with_codes!(self.layout, dequantised),
            }
            for (out, partial) in out.iter_mut().zip(partial.iter()) {
                *out = std::array::from_fn(|lane| partial[0][lane] + partial[1][lane]);
            }
            self.write(expert, panel, &out[..pairs.len()], pairs, y);
        }
    }

    fn exact<W, const ROWS: usize>(
        &self,
        expert: usize,
        rows: [*const f32; ROWS],
        pairs: &[RowPair],
        y: &mut Tile<'_, f32>,
    ) where
        Exact<W, ROWS>: Job<Output = ()>,
    {
        let mut out = [[0.0; LANES]; PANEL_BATCH * FEW];
        for first in self.panels.clone().step_by(PANEL_BATCH) {
            let batch = first..self.panels.end.min(first + PANEL_BATCH);
            let weights = &self.packed[self.layout.panel_range(expert, first).start..];
            let job = Exact::<W, ROWS> {
                first: weights[..batch.len() * self.layout.panel_bytes()].as_ptr(),
                count: batch.len(),
                inputs: self.layout.inp(),
                rows,
                out: out.as_mut_ptr(),
                weight: PhantomData,
            };
            // SAFETY: panels and rows were sliced out of the checked slices; `out` holds a full batch.
            unsafe { self.level.run(job) };
            for (panel, out) in batch.zip(out.chunks_exact(ROWS)) {
                self.write(expert, panel, out, pairs, y);
            }
        }
    }

    fn quantised_panels(&self, expert: usize, panels: Range<usize>) -> Panels {
        let start = self.layout.panel_range(expert, panels.start).start;
        let bytes = &self.packed[start..][..panels.len() * self.layout.panel_bytes()];
        Panels {
            first: bytes.as_ptr(),
            count: panels.len(),
            groups: self.layout.inp() / self.layout.group(),
            blocks: self.layout.group() / self.layout.block(),
            scale_type: self.layout.scale_type(),
        }
    }

    fn write(
        &self,
        expert: usize,
        panel: usize,
        results: &[[f32; LANES]],
        pairs: &[RowPair],
        y: &mut Tile<'_, f32>,
    ) {
        let lanes = LANES.min(self.layout.out() - panel * LANES);
        let column = (panel - self.panels.start) * LANES;
        let mut bias = [0.0; LANES];
        if let Some(all) = self.epilogue.bias {
            bias[..lanes].copy_from_slice(&all[expert * self.layout.out() + panel * LANES..][..lanes]);
        }
        for (result, &(_, row)) in results.iter().zip(pairs) {
            let to = &mut y.row_mut(row)[column..column + lanes];
            let mut value = *result;
            if self.epilogue.bias.is_some() {
                value = std::array::from_fn(|lane| value[lane] + bias[lane]);
            }
            match self.epilogue.write {
                Write::Store => to.copy_from_slice(&value[..lanes]),
                Write::Add => to.iter_mut().zip(&value).for_each(|(to, value)| *to += value),
            }
        }
    }
}

/// The sums of the terms of each row, moved to the front.
fn add_terms<const TERMS: usize>(out: &mut [[f32; LANES]]) -> &[[f32; LANES]] {
    if TERMS == 2 {
        for row in 0..out.len() / 2 {
            let (main, rest) = (out[2 * row], out[2 * row + 1]);
            out[row] = std::array::from_fn(|lane| main[lane] + rest[lane]);
        }
    }
    out
}
