//! Int8 rows as a CPU kernel writes them: its own tile of codes, scales and sums, row by row, in one term or two.

use bessemer_hal::cpu::{Invocation, Tile};
use bessemer_hal::{Binding, Tiling};

use super::ops::{broken, terms};
use super::quantise::{Int8RowMut, quantise_row};
use crate::{Activations, Isa, QuantisedRows};

/// What quantised activations are written with: parameters of a kernel.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Int8Params {
    /// Columns that share a scale.
    group: u32,
    /// Rows of codes that make a row.
    terms: u32,
}

impl Int8Params {
    /// Those of `out`; of f32 activations zeros.
    pub(crate) fn new(out: &Activations) -> Self {
        match out {
            Activations::F32(_) => Self { group: 0, terms: 0 },
            Activations::Int8(rows) | Activations::Int8x2(rows) => Self::of(rows.group, terms(out)),
        }
    }

    /// Those of rows of so many terms.
    pub(crate) fn of(group: usize, terms: usize) -> Self {
        Self { group: group as u32, terms: terms as u32 }
    }

    /// Columns that share a scale.
    pub(crate) fn group(self) -> usize {
        self.group as usize
    }

    /// Those of rows of one term.
    pub(crate) fn one_term(out: &QuantisedRows) -> Self {
        Self::of(out.group, 1)
    }

    /// Rows of codes that make a row; 0 for f32.
    pub(crate) fn terms(self) -> usize {
        self.terms as usize
    }

    /// The three bindings of `out`, whose f32 form would be tiled as `tiling` says. Groups divide a tile's columns.
    pub(crate) fn bind(self, out: &QuantisedRows, tiling: Tiling) -> [Binding; 3] {
        let (group, terms) = (self.group.max(1) as usize, self.terms as usize);
        let codes = Tiling { rows: tiling.rows * terms, tile_rows: tiling.tile_rows * terms, ..tiling };
        let groups = Tiling { cols: codes.cols / group, tile_cols: codes.tile_cols / group, ..codes };
        [
            Binding::write(out.codes.clone(), codes),
            Binding::write(out.scales.clone(), groups),
            Binding::write(out.sums.clone(), groups),
        ]
    }
}

/// The tile of a workgroup.
pub(crate) struct Int8Tiles<'a> {
    codes: Tile<'a, i8>,
    scales: Tile<'a, f32>,
    sums: Tile<'a, i32>,
    group: usize,
    terms: usize,
    /// What the first term leaves of a row.
    left_over: Vec<f32>,
}

impl<'a> Int8Tiles<'a> {
    /// Takes the three outputs from binding `first` on, which [`Int8Params::bind`] made.
    pub(crate) fn take(invocation: &mut Invocation<'a>, first: usize, params: Int8Params) -> Self {
        let [codes, scales, sums] = [first, first + 1, first + 2];
        Self::over((invocation.output(codes), invocation.output(scales), invocation.output(sums)), params)
    }

    /// Codes, scales and sums of its own.
    pub(crate) fn over(
        (codes, scales, sums): (Tile<'a, i8>, Tile<'a, f32>, Tile<'a, i32>),
        params: Int8Params,
    ) -> Self {
        Self {
            codes,
            scales,
            sums,
            group: params.group as usize,
            terms: params.terms.max(1) as usize,
            left_over: Vec::new(),
        }
    }

    /// Rows of the tile, counted as those of the f32 form.
    pub(crate) fn rows(&self) -> usize {
        self.codes.rows() / self.terms
    }

    /// The row that the tile starts at.
    pub(crate) fn first_row(&self) -> usize {
        self.codes.first_row() / self.terms
    }

    /// The column that the tile starts at.
    pub(crate) fn first_col(&self) -> usize {
        self.codes.first_col()
    }

    /// Columns of the tile.
    pub(crate) fn cols(&self) -> usize {
        self.codes.cols()
    }

    /// Writes row `row` of the tile.
    pub(crate) fn write(&mut self, row: usize, x: &[f32]) {
        let first = row * self.terms;
        self.write_term(first, x);
        if self.terms < 2 {
            return;
        }
        let mut left_over = std::mem::take(&mut self.left_over);
        left_over.resize(x.len(), 0.0);
        let blocks = left_over.chunks_exact_mut(self.group).zip(x.chunks_exact(self.group));
        let quantised = self.codes.row(first).chunks_exact(self.group).zip(self.scales.row(first));
        for ((left_over, x), (codes, scale)) in blocks.zip(quantised) {
            for ((left_over, x), code) in left_over.iter_mut().zip(x).zip(codes) {
                *left_over = x - scale * f32::from(*code);
            }
        }
        self.write_term(first + 1, &left_over);
        self.left_over = left_over;
    }

    fn write_term(&mut self, at: usize, x: &[f32]) {
        let to = Int8RowMut {
            codes: self.codes.row_mut(at),
            scales: self.scales.row_mut(at),
            sums: self.sums.row_mut(at),
        };
        quantise_row(Isa::detect(), x, self.group, to).unwrap_or_else(|error| broken(&error.to_string()));
    }
}
