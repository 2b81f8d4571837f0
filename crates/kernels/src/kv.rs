//! Keys and values as the KV cache stores them.

use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::simd::Simd;

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
    /// Rounds `from` into `to`, which is as long. Clobbers `from`.
    fn narrow(from: &mut [f32], to: &mut [Self]);
    /// The first [`Simd::LANES`] elements of `from`, with 0 for those it lacks.
    fn load<S: Simd>(s: S, from: &[Self]) -> S::V;
}

impl KvElement for f32 {
    fn narrow(from: &mut [f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::V {
        s.load(from, 0.0)
    }
}

impl KvElement for f16 {
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
