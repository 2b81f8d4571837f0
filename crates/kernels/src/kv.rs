//! Keys and values as the KV cache stores them.
//!
//! Sixteen consecutive rows of a cache are a *strip*, `[kv_heads, 16 · head_dim]`: what one head has in it lies together.
//! Keys lie *turned*, `[head_dim, 16 keys]`, so that attention finds sixteen keys side by side and never transposes;
//! values lie in rows, `[16 values, head_dim]`. The rejected form, rows of all heads, costs a transposition for each
//! token that decodes, while a key is stored only once; and it leaves a head's values in pieces, each as far from the
//! next as a row is long.
#![allow(unsafe_code)]

use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::simd::Simd;

/// Rows of a strip of a KV cache: a cache consists of whole strips, and so does each of its blocks.
pub const STRIP: usize = 16;

/// Element type of a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE half precision.
    F16,
}

impl KvType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// An element of a KV cache.
pub(crate) trait KvElement: Pod {
    /// Nothing is done to widen it.
    const WIDE: bool;
    /// Rounds `from` into `to`, which is as long. Clobbers `from`.
    fn narrow(from: &mut [f32], to: &mut [Self]);
    /// The first [`Simd::LANES`] elements of `from`, with 0 for those it lacks.
    fn load<S: Simd>(s: S, from: &[Self]) -> S::V;
    /// [`Simd::LANES`] elements from `from`.
    ///
    /// # Safety
    /// That many elements can be read.
    unsafe fn load_ptr<S: Simd>(s: S, from: *const Self) -> S::V;
}

impl KvElement for f32 {
    const WIDE: bool = true;
    fn narrow(from: &mut [f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::V {
        s.load(from, 0.0)
    }
    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, from: *const f32) -> S::V {
        // SAFETY: the caller's promise is the same.
        unsafe { s.load_ptr(from) }
    }
}

impl KvElement for f16 {
    const WIDE: bool = false;
    /// What is too large becomes the largest finite value: one infinite value in the cache would make every later
    /// token of its sequence undefined.
    fn narrow(from: &mut [f32], to: &mut [Self]) {
        for x in from.iter_mut() {
            *x = x.clamp(-65504.0, 65504.0);
        }
        to.convert_from_f32_slice(from);
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::V {
        s.load_f16(from.reinterpret_cast())
    }
    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, from: *const f16) -> S::V {
        // SAFETY: the caller's promise is the same, and a half float is its 16 bits.
        unsafe { s.load_f16_ptr(from.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_saturates() {
        let mut out = [f16::ZERO; 5];
        f16::narrow(&mut [1e9, f32::NEG_INFINITY, f32::NAN, -1.5, 65519.0], &mut out);
        assert_eq!((out[0], out[1], out[3], out[4]), (f16::MAX, f16::MIN, f16::from_f32(-1.5), f16::MAX));
        assert!(out[2].is_nan());
    }
}
