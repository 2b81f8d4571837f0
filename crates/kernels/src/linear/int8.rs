//! Quantised weights times int8 activations.
//!
//! For each output and row, blocks ascending, with `u` the codes, `q`, `d` and `m` the activation's codes, scale and
//! sum (`m = Σq`), `s` and `b` the weight's scale and bias:
//!
//! ```text
//! acc = fma(float(Σ u·q), s · d, acc);  acc = fma(b, d · float(m), acc)
//! ```
//!
//! The inner sum is an exact integer, so its order is free; that is all the freedom the variants below use, and why
//! they agree bit for bit, on every instruction set.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::codes::Code;
use super::layout::{LANES, ScaleType};
use super::simd::{Job, Simd};

/// Panels of quantised weights, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) first: *const u8,
    pub(super) count: usize,
    /// Groups of a panel.
    pub(super) groups: usize,
    /// Blocks of a group.
    pub(super) blocks: usize,
    pub(super) scale_type: ScaleType,
}

/// A row of int8 activations.
#[derive(Clone, Copy)]
pub(super) struct Int8Row {
    pub(super) codes: *const i8,
    pub(super) scales: *const f32,
    pub(super) sums: *const i32,
}

/// Few rows, any number of panels: everything stays in registers, and weights stream by once. The processor's own
/// prefetching reaches the memory's speed; asking for lines by instruction was tried and made it slower.
/// `ROWS` is 1, 2 or 4. Writes `[panel][row][lane]`.
pub(super) struct Few<C, const CHUNKS: usize, const ROWS: usize> {
    pub(super) panels: Panels,
    pub(super) rows: [Int8Row; ROWS],
    /// Sixteen floats for each panel and row.
    pub(super) out: *mut [f32; LANES],
    pub(super) code: PhantomData<C>,
}

impl<C: Code, const CHUNKS: usize, const ROWS: usize> Job for Few<C, CHUNKS, ROWS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let block_bytes = CHUNKS * 8 * C::BITS;
        let Panels { mut first, count, groups, blocks, scale_type } = self.panels;
        // SAFETY: the pointers cover the panels, rows and outputs that the fields name.
        unsafe {
            let zero = S::splat_i(0);
            for panel in 0..count {
                let mut acc = [S::splat(0.0); ROWS];
                let mut block = 0;
                for _ in 0..groups {
                    let (scale, bias) = C::scales::<S>(first.add(blocks * block_bytes), scale_type);
                    for _ in 0..blocks {
                        let codes = C::unpack::<S, CHUNKS>(first);
                        // With few rows, several sums a row keep the dot products from waiting for each other.
                        let mut dots = [[zero; 4]; ROWS];
                        for (c, codes) in codes.into_iter().enumerate() {
                            for (row, dots) in self.rows.iter().zip(&mut dots) {
                                let way = c % (4 / ROWS);
                                let x = S::repeat4(row.codes.add((block * CHUNKS + c) * 4));
                                dots[way] = multiply_add::<S, C>(dots[way], codes, x);
                            }
                        }
                        for ((row, dots), acc) in self.rows.iter().zip(dots).zip(&mut acc) {
                            let dot = S::add_i(S::add_i(dots[0], dots[1]), S::add_i(dots[2], dots[3]));
                            *acc = finish::<S>(
                                *acc,
                                dot,
                                (scale, bias),
                                (*row.scales.add(block), *row.sums.add(block)),
                            );
                        }
                        block += 1;
                        first = first.add(block_bytes);
                    }
                    first = first.add(C::scale_bytes(scale_type));
                }
                for (row, acc) in acc.into_iter().enumerate() {
                    S::store_f(self.out.add(panel * ROWS + row).cast(), acc);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn multiply_add<S: Simd, C: Code>(acc: S::I, codes: S::I, x: S::I) -> S::I {
    // SAFETY: the caller has `S`.
    unsafe { if C::WIDE { S::dot::<true>(acc, codes, x) } else { S::dot::<false>(acc, codes, x) } }
}

#[inline(always)]
unsafe fn finish<S: Simd>(
    acc: S::F,
    dot: S::I,
    (scale, bias): (S::F, S::F),
    (row_scale, row_sum): (f32, i32),
) -> S::F {
    // SAFETY: the caller has `S`.
    unsafe {
        let acc = S::fma(S::to_f(dot), S::mul(scale, S::splat(row_scale)), acc);
        S::fma(bias, S::splat(row_scale * row_sum as f32), acc)
    }
}

/// Many rows, one panel: a block is unpacked once and swept over all rows. Adds to `[row][lane]`.
pub(super) struct Many<'a, C, const CHUNKS: usize> {
    pub(super) panel: Panels,
    pub(super) rows: &'a [Int8Row],
    /// As many as rows.
    pub(super) out: &'a mut [[f32; LANES]],
    pub(super) code: PhantomData<C>,
}

impl<C: Code, const CHUNKS: usize> Job for Many<'_, C, CHUNKS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let block_bytes = CHUNKS * 8 * C::BITS;
        let Panels { mut first, groups, blocks, scale_type, .. } = self.panel;
        let mut block = 0;
        // SAFETY: the pointers cover the panel and the rows that the fields name.
        unsafe {
            for _ in 0..groups {
                let scales = C::scales::<S>(first.add(blocks * block_bytes), scale_type);
                for _ in 0..blocks {
                    let codes = C::unpack::<S, CHUNKS>(first);
                    match S::INT_ROWS {
                        8 => all::<S, C, CHUNKS, 8>(&codes, scales, self.rows, block, self.out),
                        _ => all::<S, C, CHUNKS, 4>(&codes, scales, self.rows, block, self.out),
                    }
                    block += 1;
                    first = first.add(block_bytes);
                }
                first = first.add(C::scale_bytes(scale_type));
            }
        }
    }
}

/// One block times all rows, `ROWS` at once: enough to hide the latency of a dot product.
#[inline(always)]
unsafe fn all<S: Simd, C: Code, const CHUNKS: usize, const ROWS: usize>(
    codes: &[S::I; CHUNKS],
    scales: (S::F, S::F),
    rows: &[Int8Row],
    block: usize,
    out: &mut [[f32; LANES]],
) {
    let (rows, rest) = rows.as_chunks::<ROWS>();
    let (out, rest_out) = out.as_chunks_mut::<ROWS>();
    // SAFETY: as the caller's.
    unsafe {
        for (rows, out) in rows.iter().zip(out) {
            sweep::<S, C, CHUNKS, ROWS>(codes, scales, rows, block, out);
        }
        for (row, out) in rest.iter().zip(rest_out) {
            sweep::<S, C, CHUNKS, 1>(codes, scales, &[*row], block, std::slice::from_mut(out));
        }
    }
}

#[inline(always)]
unsafe fn sweep<S: Simd, C: Code, const CHUNKS: usize, const ROWS: usize>(
    codes: &[S::I; CHUNKS],
    scales: (S::F, S::F),
    rows: &[Int8Row],
    block: usize,
    out: &mut [[f32; LANES]],
) {
    // SAFETY: as the caller's; `rows` and `out` have ROWS elements.
    unsafe {
        let x: [*const i8; ROWS] =
            std::array::from_fn(|r| rows.get_unchecked(r).codes.add(block * CHUNKS * 4));
        let mut dots = [S::splat_i(0); ROWS];
        for (c, codes) in codes.iter().enumerate() {
            for (x, dot) in x.iter().zip(&mut dots) {
                *dot = multiply_add::<S, C>(*dot, *codes, S::repeat4(x.add(4 * c)));
            }
        }
        for (r, dot) in dots.into_iter().enumerate() {
            let (row, out) = (rows.get_unchecked(r), out.get_unchecked_mut(r));
            let acc = S::load_f(out.as_ptr());
            let acc = finish::<S>(acc, dot, scales, (*row.scales.add(block), *row.sums.add(block)));
            S::store_f(out.as_mut_ptr(), acc);
        }
    }
}
