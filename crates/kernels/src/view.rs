//! How operations name their operands: matrices inside buffers, and activations in either precision.

use bessemer_hal::Slice;

/// Rows of an f32 matrix that may be wider than what is meant: row `r` starts at element `r * stride + offset`.
///
/// The outputs of fused projections are read through it (`q`, `k` and `v` of one `qkv_proj`).
#[derive(Clone, Debug)]
pub struct View {
    /// The whole matrix.
    pub slice: Slice,
    /// Elements from row to row.
    pub stride: usize,
    /// Elements before the first column that is meant.
    pub offset: usize,
}

impl View {
    /// A dense matrix of `cols` columns.
    pub fn dense(slice: Slice, cols: usize) -> Self {
        Self { slice, stride: cols, offset: 0 }
    }
}

/// The input of a linear layer: rows × `dim` activations.
#[derive(Clone, Debug)]
pub enum Activations {
    /// f32 `[rows, dim]`.
    F32(Slice),
    /// Quantised per row and group: `x ≈ scale · code`.
    Int8(QuantisedRows),
    /// The same twice over, for about 15 bits: each row is two rows of codes, `2r` and `2r + 1`, of which the second
    /// holds what the first left over. A product costs two, but reads its weights once.
    Int8x2(QuantisedRows),
}

/// Rows of int8 activations with one scale per group of columns.
#[derive(Clone, Debug)]
pub struct QuantisedRows {
    /// i8 `[rows, dim]`.
    pub codes: Slice,
    /// f32 `[rows, dim / group]`.
    pub scales: Slice,
    /// i32 `[rows, dim / group]`: the sum of a group's codes.
    pub sums: Slice,
    /// Columns that share a scale; divides `dim`, or `dim` is padded by the last group.
    pub group: usize,
}
