//! The one product inside attention: a few rows times a matrix that lies in the cache.
#![allow(unsafe_code)]

use crate::simd::Simd;

/// Rows that are multiplied together: what the machine's registers hold beside the matrix.
pub(super) const ROWS: usize = 6;

/// Row-major f32 in memory.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    /// The elements.
    pub(super) data: &'a [f32],
    /// Elements from row to row.
    pub(super) stride: usize,
}

/// `to[r] = keep[r] · to[r] + a[r] · b` (without `keep`: `to[r] = a[r] · b`) for `rows ≤ ROWS` rows, over the first
/// `depth` rows and `columns` columns of `b`.
///
/// `columns` is rounded up to whole registers, which the strides must leave room for. Each result is one chain of
/// multiply-adds in the order of `b`'s rows, however rows and columns are grouped.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    s: S,
    (rows, depth, columns): (usize, usize, usize),
    a: Matrix<'_>,
    b: Matrix<'_>,
    to: (&mut [f32], usize),
    keep: Option<&[f32; 16]>,
) {
    let columns = columns.div_ceil(S::LANES) * S::LANES;
    let (to, to_stride) = to;
    if rows == 0 || columns == 0 {
        return;
    }
    // The blocks below check nothing.
    assert!(rows <= ROWS && columns <= b.stride && columns <= to_stride && depth <= a.stride);
    assert!(a.data.len() >= (rows - 1) * a.stride + depth && to.len() >= (rows - 1) * to_stride + columns);
    assert!(depth == 0 || b.data.len() >= (depth - 1) * b.stride + columns);
    let mut row = 0;
    while row < rows {
        let height = match rows - row {
            6.. => 6,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let mut column = 0;
        while column < columns {
            let left = (columns - column) / S::LANES;
            let width = match left {
                4.. if S::WIDE_TILES => 4,
                2.. => 2,
                _ => 1,
            };
            let block = Block {
                a: &a.data[row * a.stride..],
                a_stride: a.stride,
                b: &b.data[column.min(b.data.len())..],
                b_stride: b.stride,
                depth,
                to_stride,
                keep: keep.map(|keep| &keep[row..]),
            };
            let to = &mut to[row * to_stride + column..];
            // SAFETY: `height` rows and `width` registers lie inside what was asserted above.
            unsafe {
                match (height, width) {
                    (6, 4) if S::WIDE_TILES => block.run::<S, 6, 4>(s, to),
                    (6, 2) => block.run::<S, 6, 2>(s, to),
                    (6, _) => block.run::<S, 6, 1>(s, to),
                    (4, 4) if S::WIDE_TILES => block.run::<S, 4, 4>(s, to),
                    (4, 2) => block.run::<S, 4, 2>(s, to),
                    (4, _) => block.run::<S, 4, 1>(s, to),
                    (2, 4) if S::WIDE_TILES => block.run::<S, 2, 4>(s, to),
                    (2, 2) => block.run::<S, 2, 2>(s, to),
                    (2, _) => block.run::<S, 2, 1>(s, to),
                    (_, 4) if S::WIDE_TILES => block.run::<S, 1, 4>(s, to),
                    (_, 2) => block.run::<S, 1, 2>(s, to),
                    _ => block.run::<S, 1, 1>(s, to),
                }
            }
            column += width * S::LANES;
        }
        row += height;
    }
}

struct Block<'a> {
    a: &'a [f32],
    a_stride: usize,
    b: &'a [f32],
    b_stride: usize,
    depth: usize,
    to_stride: usize,
    keep: Option<&'a [f32]>,
}

impl Block<'_> {
    /// # Safety
    /// `R` rows of `a`, `depth` of `b` and `R` of `to` can be reached, `C` registers wide.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const C: usize>(self, s: S, to: &mut [f32]) {
        let (a, b, to) = (self.a.as_ptr(), self.b.as_ptr(), to.as_mut_ptr());
        let mut sums = [[s.splat(0.0); C]; R];
        // SAFETY: the caller vouches for all of it.
        unsafe {
            if let Some(keep) = self.keep {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let keep = s.splat(*keep.get_unchecked(r));
                    for (c, sum) in sums.iter_mut().enumerate() {
                        *sum = s.mul(s.load_ptr(to.add(r * self.to_stride + c * S::LANES)), keep);
                    }
                }
            }
            for k in 0..self.depth {
                let mut row = [s.splat(0.0); C];
                for (c, row) in row.iter_mut().enumerate() {
                    *row = s.load_ptr(b.add(k * self.b_stride + c * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = s.splat(*a.add(r * self.a_stride + k));
                    for (sum, row) in sums.iter_mut().zip(row) {
                        *sum = s.fma(x, row, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    s.store_ptr(to.add(r * self.to_stride + c * S::LANES), *sum);
                }
            }
        }
    }
}
