//! Activations to int8, block by block.
//!
//! For each block of 32 or 64 inputs of a row: `d = max|x| / 127`, `q = round(x · (127 / max|x|))`, ties to even, and
//! the sum `Σq`, which the weights' biases are multiplied with.
//!
//! - A block with an infinity or a NaN gets `d = NaN` and zero codes: the *error stays visible* in the row's
//!   outputs and in no other row's.
//! - A block whose largest value is below 1e-30 is *zero*: its reciprocal would leave the range of f32.
#![allow(unsafe_code)]

use super::layout::LinearError;
use super::simd::{Job, Level, Simd};
use crate::Isa;

/// Rows of int8 activations; every slice is row-major.
#[derive(Clone, Copy, Debug)]
pub struct Int8Rows<'a> {
    /// Codes in −127..=127, `[rows][inp]`.
    pub codes: &'a [i8],
    /// Scale of each block, `[rows][inp / block]`.
    pub scales: &'a [f32],
    /// Sum of the codes of each block, `[rows][inp / block]`.
    pub sums: &'a [i32],
}

/// One row of int8 activations to be written.
#[derive(Debug)]
pub struct Int8RowMut<'a> {
    /// As many as the row's inputs.
    pub codes: &'a mut [i8],
    /// One a block.
    pub scales: &'a mut [f32],
    /// One a block.
    pub sums: &'a mut [i32],
}

/// Quantises one row in blocks of `block` (32 or 64) inputs.
///
/// # Errors
/// When the row is not made of whole blocks or the slices of `to` do not fit it.
pub fn quantise_row(isa: Isa, x: &[f32], block: usize, to: Int8RowMut<'_>) -> Result<(), LinearError> {
    let blocks = x.len() / block.max(32);
    let fits = matches!(block, 32 | 64) && x.len().is_multiple_of(block);
    if !fits || to.codes.len() != x.len() || to.scales.len() != blocks || to.sums.len() != blocks {
        return Err(LinearError::new(format!(
            "{} inputs in blocks of {block} (32 or 64) do not fit {} codes, {} scales and {} sums",
            x.len(),
            to.codes.len(),
            to.scales.len(),
            to.sums.len()
        )));
    }
    let Int8RowMut { codes, scales, sums } = to;
    let level = Level::of(isa);
    // SAFETY: the slices have the lengths that the job needs.
    unsafe {
        if block == 32 {
            level.run(Quantise::<2> { x, codes, scales, sums });
        } else {
            level.run(Quantise::<4> { x, codes, scales, sums });
        }
    }
    Ok(())
}

struct Quantise<'a, const VECTORS: usize> {
    x: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl<const VECTORS: usize> Job for Quantise<'_, VECTORS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (block, (scale, sum)) in self.scales.iter_mut().zip(self.sums).enumerate() {
            let at = block * VECTORS * 16;
            // SAFETY: a block has VECTORS · 16 inputs and codes, and there are as many scales and sums as blocks.
            unsafe {
                let x: [S::F; VECTORS] = std::array::from_fn(|v| S::load_f(self.x.as_ptr().add(at + 16 * v)));
                let (codes, d, total) = quantise_block::<S, VECTORS>(x);
                for (v, codes) in codes.into_iter().enumerate() {
                    S::store_bytes(self.codes.as_mut_ptr().add(at + 16 * v), codes);
                }
                (*scale, *sum) = (d, total);
            }
        }
    }
}

/// Codes, scale and sum of one block.
#[inline(always)]
pub(super) unsafe fn quantise_block<S: Simd, const VECTORS: usize>(
    x: [S::F; VECTORS],
) -> ([S::I; VECTORS], f32, i32) {
    // SAFETY: the caller has `S`.
    unsafe {
        // Magnitudes are compared as integers: the order is the same, and infinities and NaN come out on top.
        let magnitude = S::splat_i(0x7fff_ffff);
        let mut largest = S::splat_i(0);
        for x in x {
            largest = S::max_i(largest, S::and(S::bits(x), magnitude));
        }
        let largest = f32::from_bits(S::reduce_max(largest) as u32);
        let zero = S::splat_i(0);
        if !largest.is_finite() {
            return ([zero; VECTORS], f32::NAN, 0);
        }
        if largest < 1e-30 {
            return ([zero; VECTORS], 0.0, 0);
        }
        let (scale, inverse) = (largest / 127.0, S::splat(127.0 / largest));
        let codes = x.map(|x| S::round(S::mul(x, inverse)));
        let mut sum = zero;
        for codes in codes {
            sum = S::add_i(sum, codes);
        }
        (codes, scale, S::reduce_add(sum))
    }
}
