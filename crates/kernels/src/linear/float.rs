//! Weights of any encoding times f32 activations: the exact form.
//!
//! For each output and row, inputs ascending, even and odd inputs apart:
//!
//! ```text
//! acc[k % 2] = fma(x[k], w[k], acc[k % 2]);  y = acc[0] + acc[1]
//! ```
//!
//! where a quantised weight is `w = fma(code, scale, bias)`. Quantised weights are dequantised block by block to the
//! stack and then take the plain path.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::codes::Code;
use super::int8::Panels;
use super::layout::LANES;
use super::simd::{Job, Simd};

/// Both partial sums of a row.
pub(super) type Partial = [[f32; LANES]; 2];

/// Unquantised weights in a panel.
pub(super) trait Plain {
    /// Bytes of a weight.
    const SIZE: usize;

    /// The sixteen weights at `p`.
    ///
    /// # Safety
    /// They are there, and `S` is present.
    unsafe fn load<S: Simd>(p: *const u8) -> S::F;
}

pub(super) struct PlainF32;
pub(super) struct PlainF16;
pub(super) struct PlainBf16;

impl Plain for PlainF32 {
    const SIZE: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: as the caller's.
        unsafe { S::load_f(p.cast()) }
    }
}

impl Plain for PlainF16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: as the caller's.
        unsafe { S::load_f16(p) }
    }
}

impl Plain for PlainBf16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: as the caller's.
        unsafe { S::load_bf16(p) }
    }
}

/// Adds `inputs` products to the partial sums of each row.
#[inline(always)]
unsafe fn accumulate<S: Simd, W: Plain, const ROWS: usize>(
    weights: *const u8,
    inputs: usize,
    x: [*const f32; ROWS],
    acc: &mut [[S::F; 2]; ROWS],
) {
    let step = LANES * W::SIZE;
    // SAFETY: the caller has `inputs` weights and inputs of each row.
    unsafe {
        for pair in 0..inputs / 2 {
            let k = 2 * pair;
            let even = W::load::<S>(weights.add(k * step));
            let odd = W::load::<S>(weights.add((k + 1) * step));
            for (x, acc) in x.iter().zip(acc.iter_mut()) {
                acc[0] = S::fma(S::splat(*x.add(k)), even, acc[0]);
                acc[1] = S::fma(S::splat(*x.add(k + 1)), odd, acc[1]);
            }
        }
        if inputs % 2 == 1 {
            let last = W::load::<S>(weights.add((inputs - 1) * step));
            for (x, acc) in x.iter().zip(acc.iter_mut()) {
                acc[0] = S::fma(S::splat(*x.add(inputs - 1)), last, acc[0]);
            }
        }
    }
}

/// Unquantised panels, one after the other, times `ROWS` rows. Writes `[panel][row][lane]`.
pub(super) struct Exact<W, const ROWS: usize> {
    pub(super) first: *const u8,
    pub(super) count: usize,
    pub(super) inputs: usize,
    pub(super) rows: [*const f32; ROWS],
    /// Sixteen floats for each panel and row.
    pub(super) out: *mut [f32; LANES],
    pub(super) weight: PhantomData<W>,
}

impl<W: Plain, const ROWS: usize> Job for Exact<W, ROWS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the pointers cover the panels, rows and outputs that the fields name.
        unsafe {
            for panel in 0..self.count {
                let mut acc = [[S::splat(0.0); 2]; ROWS];
                let weights = self.first.add(panel * self.inputs * LANES * W::SIZE);
                accumulate::<S, W, ROWS>(weights, self.inputs, self.rows, &mut acc);
                for (row, acc) in acc.into_iter().enumerate() {
                    S::store_f(self.out.add(panel * ROWS + row).cast(), S::add(acc[0], acc[1]));
                }
            }
        }
    }
}

/// One quantised panel times any number of rows. Adds to the partial sums of each row.
pub(super) struct Dequantised<'a, C, const CHUNKS: usize> {
    pub(super) panel: Panels,
    pub(super) rows: &'a [*const f32],
    /// As many as rows.
    pub(super) out: &'a mut [Partial],
    pub(super) code: PhantomData<C>,
}

impl<C: Code, const CHUNKS: usize> Job for Dequantised<'_, C, CHUNKS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let block_bytes = CHUNKS * 8 * C::BITS;
        let Panels { mut first, groups, blocks, scale_type, .. } = self.panel;
        let mut weights = [[0.0_f32; LANES]; 64];
        let mut block = 0;
        // SAFETY: the pointers cover the panel and the rows that the fields name; a block has at most 64 inputs.
        unsafe {
            let byte = S::splat_i(0xff);
            for _ in 0..groups {
                let (scale, bias) = C::scales::<S>(first.add(blocks * block_bytes), scale_type);
                for _ in 0..blocks {
                    for (c, codes) in C::unpack::<S, CHUNKS>(first).into_iter().enumerate() {
                        for k in 0..4 {
                            let code = S::to_f(S::and(S::shr(codes, 8 * k as u32), byte));
                            S::store_f(weights[4 * c + k].as_mut_ptr(), S::fma(code, scale, bias));
                        }
                    }
                    let weights = weights.as_ptr().cast();
                    add_all::<S, PlainF32>(weights, block * CHUNKS * 4, CHUNKS * 4, self.rows, self.out);
                    block += 1;
                    first = first.add(block_bytes);
                }
                first = first.add(C::scale_bytes(scale_type));
            }
        }
    }
}

/// One unquantised panel times any number of rows. Adds to the partial sums of each row.
pub(super) struct Swept<'a, W> {
    pub(super) panel: *const u8,
    pub(super) inputs: usize,
    pub(super) rows: &'a [*const f32],
    /// As many as rows.
    pub(super) out: &'a mut [Partial],
    pub(super) weight: PhantomData<W>,
}

/// Inputs whose weights stay in the L1 cache while all rows pass by; even, so that no pair is torn.
const SWEEP: usize = 128;

impl<W: Plain> Job for Swept<'_, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for first in (0..self.inputs).step_by(SWEEP) {
            let inputs = SWEEP.min(self.inputs - first);
            // SAFETY: the pointers cover the panel and the rows that the fields name.
            unsafe {
                let weights = self.panel.add(first * LANES * W::SIZE);
                add_all::<S, W>(weights, first, inputs, self.rows, self.out);
            }
        }
    }
}

/// Adds `inputs` products, from input `first` on, to the partial sums of all rows.
#[inline(always)]
unsafe fn add_all<S: Simd, W: Plain>(
    weights: *const u8,
    first: usize,
    inputs: usize,
    rows: &[*const f32],
    out: &mut [Partial],
) {
    // SAFETY: as the caller's.
    unsafe {
        match S::FLOAT_ROWS {
            8 => add_by::<S, W, 8>(weights, first, inputs, rows, out),
            _ => add_by::<S, W, 2>(weights, first, inputs, rows, out),
        }
    }
}

#[inline(always)]
unsafe fn add_by<S: Simd, W: Plain, const ROWS: usize>(
    weights: *const u8,
    first: usize,
    inputs: usize,
    rows: &[*const f32],
    out: &mut [Partial],
) {
    let (rows, rest) = rows.as_chunks::<ROWS>();
    let (out, rest_out) = out.as_chunks_mut::<ROWS>();
    // SAFETY: as the caller's.
    unsafe {
        for (rows, out) in rows.iter().zip(out) {
            add::<S, W, ROWS>(weights, first, inputs, rows, out);
        }
        for (row, out) in rest.iter().zip(rest_out) {
            add::<S, W, 1>(weights, first, inputs, &[*row], std::array::from_mut(out));
        }
    }
}

#[inline(always)]
unsafe fn add<S: Simd, W: Plain, const ROWS: usize>(
    weights: *const u8,
    first: usize,
    inputs: usize,
    rows: &[*const f32; ROWS],
    out: &mut [Partial; ROWS],
) {
    // SAFETY: as the caller's.
    unsafe {
        let mut x = *rows;
        let mut acc = [[S::splat(0.0); 2]; ROWS];
        for ((x, acc), out) in x.iter_mut().zip(&mut acc).zip(out.iter()) {
            *x = x.add(first);
            *acc = [S::load_f(out[0].as_ptr()), S::load_f(out[1].as_ptr())];
        }
        accumulate::<S, W, ROWS>(weights, inputs, x, &mut acc);
        for (out, acc) in out.iter_mut().zip(acc) {
            S::store_f(out[0].as_mut_ptr(), acc[0]);
            S::store_f(out[1].as_mut_ptr(), acc[1]);
        }
    }
}
