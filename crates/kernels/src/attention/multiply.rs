//! The two products inside attention: queries times keys, and weights times values.
//!
//! Both are broadcast times vector, a tile of results at a time in registers. Each result is one chain of multiply-adds,
//! over the features or over the keys in their order, however rows and columns are grouped.
#![allow(unsafe_code)]

use std::ops::Range;

use super::block::{KEYS, STRIPS, Strips};
use crate::kv::{KvElement, STRIP};
use crate::simd::Simd;

/// Rows that are multiplied together: what the machine's registers hold beside the matrix.
pub(super) const ROWS: usize = 6;

/// Rows of the next tile when `left` are left.
#[inline(always)]
fn height(left: usize) -> usize {
    match left {
        6.. => 6,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// `to[r][k] = q[r] · key k` for `rows ≤ ROWS` rows and the keys of strips `wanted`; rows of `q` are `head_dim`
/// elements, those of `to` are [`KEYS`]. A key's features are `step` elements apart.
#[inline(always)]
pub(super) fn scores<S: Simd, E: KvElement>(
    s: S,
    (rows, head_dim): (usize, usize),
    q: &[f32],
    (keys, step): (Strips<'_, E>, usize),
    wanted: Range<usize>,
    to: &mut [f32],
) {
    // The tiles below check nothing.
    assert!(rows <= ROWS && wanted.end <= STRIPS && q.len() >= rows * head_dim && to.len() >= rows * KEYS);
    assert!(
        keys[wanted.clone()].iter().all(|strip| head_dim > 0 && strip.len() >= (head_dim - 1) * step + STRIP)
    );
    let registers = wanted.start * STRIP / S::LANES..wanted.end * STRIP / S::LANES;
    let mut row = 0;
    while row < rows {
        let height = height(rows - row);
        let mut register = registers.start;
        while register < registers.end {
            let left = registers.end - register;
            let width = match left {
                4.. if S::WIDE_TILES || height <= 2 => 4,
                3 if height <= 2 => 3,
                2.. => 2,
                _ => 1,
            };
            let tile = Scores { q: &q[row * head_dim..], head_dim, keys: &keys, step, register };
            let to = &mut to[row * KEYS + register * S::LANES..];
            // SAFETY: `height` rows and `width` registers lie inside what was asserted above.
            unsafe {
                match (height, width) {
                    (6, 4) if S::WIDE_TILES => tile.run::<S, 6, 4>(s, to),
                    (6, 2) => tile.run::<S, 6, 2>(s, to),
                    (6, _) => tile.run::<S, 6, 1>(s, to),
                    (4, 4) if S::WIDE_TILES => tile.run::<S, 4, 4>(s, to),
                    (4, 2) => tile.run::<S, 4, 2>(s, to),
                    (4, _) => tile.run::<S, 4, 1>(s, to),
                    (2, 4) => tile.run::<S, 2, 4>(s, to),
                    (2, 3) => tile.run::<S, 2, 3>(s, to),
                    (2, 2) => tile.run::<S, 2, 2>(s, to),
                    (2, _) => tile.run::<S, 2, 1>(s, to),
                    (_, 4) => tile.run::<S, 1, 4>(s, to),
                    (_, 3) => tile.run::<S, 1, 3>(s, to),
                    (_, 2) => tile.run::<S, 1, 2>(s, to),
                    _ => tile.run::<S, 1, 1>(s, to),
                }
            }
            register += width;
        }
        row += height;
    }
}

struct Scores<'a, E> {
    q: &'a [f32],
    head_dim: usize,
    keys: &'a Strips<'a, E>,
    step: usize,
    /// The first register of keys.
    register: usize,
}

impl<E: KvElement> Scores<'_, E> {
    /// # Safety
    /// `R` rows of the queries and of `to` and `C` registers of keys can be reached.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const C: usize>(self, s: S, to: &mut [f32]) {
        let (q, to) = (self.q.as_ptr(), to.as_mut_ptr());
        let mut sums = [[s.splat(0.0); C]; R];
        // SAFETY: the caller vouches for all of it.
        unsafe {
            let mut keys = [std::ptr::null::<E>(); C];
            for (c, keys) in keys.iter_mut().enumerate() {
                let key = (self.register + c) * S::LANES;
                *keys = self.keys.get_unchecked(key / STRIP).as_ptr().add(key % STRIP);
            }
            for d in 0..self.head_dim {
                let mut column = [s.splat(0.0); C];
                for (column, keys) in column.iter_mut().zip(keys) {
                    *column = E::load_ptr(s, keys.add(d * self.step));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = s.splat(*q.add(r * self.head_dim + d));
                    for (sum, column) in sums.iter_mut().zip(column) {
                        *sum = s.fma(x, column, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    s.store_ptr(to.add(r * KEYS + c * S::LANES), *sum);
                }
            }
        }
    }
}

/// `to[r] = keep[r] · to[r] + weights[r] · values` for `rows ≤ ROWS` rows, over the keys `seen` of the block and no
/// others; rows of `weights` are [`KEYS`] elements, those of the values and of `to` whole registers.
#[inline(always)]
pub(super) fn mix<S: Simd, E: KvElement>(
    s: S,
    (rows, columns): (usize, usize),
    (weights, keep): (&[f32], &[f32; 16]),
    (values, stride): (Strips<'_, E>, usize),
    seen: Range<usize>,
    (to, to_stride): (&mut [f32], usize),
) {
    let registers = columns.div_ceil(S::LANES);
    // The tiles below check nothing.
    assert!(rows <= ROWS && seen.end <= KEYS && weights.len() >= rows * KEYS);
    assert!(registers * S::LANES <= stride.min(to_stride) && to.len() >= rows * to_stride);
    let strips = seen.start / STRIP..seen.end.div_ceil(STRIP);
    assert!(values[strips].iter().all(|strip| strip.len() >= STRIP * stride));
    let mut row = 0;
    while row < rows {
        let height = height(rows - row);
        let mut register = 0;
        while register < registers {
            let width = match registers - register {
                8.. if S::WIDE_TILES && height <= 2 => 8,
                4.. if S::WIDE_TILES || height <= 2 => 4,
                2.. => 2,
                _ => 1,
            };
            let column = register * S::LANES;
            let tile = Mix {
                weights: &weights[row * KEYS..],
                keep: &keep[row..],
                values: &values,
                stride,
                column,
                seen: seen.clone(),
                to_stride,
            };
            let to = &mut to[row * to_stride + column..];
            // SAFETY: `height` rows and `width` registers lie inside what was asserted above.
            unsafe {
                match (height, width) {
                    (6, 4) if S::WIDE_TILES => tile.run::<S, 6, 4>(s, to),
                    (6, 2) => tile.run::<S, 6, 2>(s, to),
                    (6, _) => tile.run::<S, 6, 1>(s, to),
                    (4, 4) if S::WIDE_TILES => tile.run::<S, 4, 4>(s, to),
                    (4, 2) => tile.run::<S, 4, 2>(s, to),
                    (4, _) => tile.run::<S, 4, 1>(s, to),
                    (2, 8) if S::WIDE_TILES => tile.run::<S, 2, 8>(s, to),
                    (2, 4) => tile.run::<S, 2, 4>(s, to),
                    (2, 2) => tile.run::<S, 2, 2>(s, to),
                    (2, _) => tile.run::<S, 2, 1>(s, to),
                    (_, 8) if S::WIDE_TILES => tile.run::<S, 1, 8>(s, to),
                    (_, 4) => tile.run::<S, 1, 4>(s, to),
                    (_, 2) => tile.run::<S, 1, 2>(s, to),
                    _ => tile.run::<S, 1, 1>(s, to),
                }
            }
            register += width;
        }
        row += height;
    }
}

struct Mix<'a, E> {
    weights: &'a [f32],
    keep: &'a [f32],
    values: &'a Strips<'a, E>,
    /// Elements from value to value.
    stride: usize,
    column: usize,
    seen: Range<usize>,
    to_stride: usize,
}

impl<E: KvElement> Mix<'_, E> {
    /// # Safety
    /// `R` rows of the weights, of `keep` and of `to` and `C` registers of the values seen can be reached.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const C: usize>(self, s: S, to: &mut [f32]) {
        let (weights, to) = (self.weights.as_ptr(), to.as_mut_ptr());
        let mut sums = [[s.splat(0.0); C]; R];
        // SAFETY: the caller vouches for all of it.
        unsafe {
            for (r, sums) in sums.iter_mut().enumerate() {
                let keep = s.splat(*self.keep.get_unchecked(r));
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = s.mul(s.load_ptr(to.add(r * self.to_stride + c * S::LANES)), keep);
                }
            }
            let mut key = self.seen.start;
            while key < self.seen.end {
                let strip = key / STRIP;
                let values = self.values.get_unchecked(strip).as_ptr().add(self.column);
                let end = self.seen.end.min((strip + 1) * STRIP);
                while key < end {
                    let value = values.add(key % STRIP * self.stride);
                    let mut row = [s.splat(0.0); C];
                    for (c, row) in row.iter_mut().enumerate() {
                        *row = E::load_ptr(s, value.add(c * S::LANES));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let weight = s.splat(*weights.add(r * KEYS + key));
                        for (sum, row) in sums.iter_mut().zip(row) {
                            *sum = s.fma(weight, row, *sum);
                        }
                    }
                    key += 1;
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
