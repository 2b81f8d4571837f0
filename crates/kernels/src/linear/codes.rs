//! Unpacking of one block of codes to bytes, chunk by chunk.
#![allow(unsafe_code)]

use super::layout::{LANES, MXFP4_CODES, ScaleType};
use super::simd::Simd;

/// A kind of codes.
pub(super) trait Code {
    /// Bits of a code in memory.
    const BITS: usize;
    /// Whether a code may need eight bits once unpacked.
    const WIDE: bool = false;

    /// The chunks of one block, a byte per code.
    ///
    /// # Safety
    /// `p` starts a block of `CHUNKS · 8 · BITS` bytes, and `S` is present.
    unsafe fn unpack<S: Simd, const CHUNKS: usize>(p: *const u8) -> [S::I; CHUNKS];

    /// Scale and bias of the sixteen lanes.
    ///
    /// # Safety
    /// `p` starts the scales of a group, and `S` is present.
    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, scale_type: ScaleType) -> (S::F, S::F) {
        // SAFETY: the biases follow the scales.
        unsafe {
            match scale_type {
                ScaleType::Bf16 => (S::load_bf16(p), S::load_bf16(p.add(2 * LANES))),
                ScaleType::F16 => (S::load_f16(p), S::load_f16(p.add(2 * LANES))),
                _ => (S::load_f(p.cast()), S::load_f(p.add(4 * LANES).cast())),
            }
        }
    }

    /// Bytes of the scales and biases of a group.
    #[inline(always)]
    fn scale_bytes(scale_type: ScaleType) -> usize {
        2 * LANES * scale_type.size()
    }
}

/// Affine codes of `N` bits.
pub(super) struct Bits<const N: usize>;

/// Field `chunk / vectors` of vector `chunk % vectors`, with whatever lies above it.
#[inline(always)]
unsafe fn field<S: Simd, const WIDTH: usize, const CHUNKS: usize>(p: *const u8, chunk: usize) -> S::I {
    let vectors = CHUNKS * WIDTH / 8;
    // SAFETY: `chunk < CHUNKS`, so the vector lies inside the plane.
    unsafe { S::shr(S::load(p.add(chunk % vectors * 64)), (chunk / vectors * WIDTH) as u32) }
}

#[inline(always)]
unsafe fn byte_mask<S: Simd>(mask: u8) -> S::I {
    // SAFETY: the caller has `S`.
    unsafe { S::splat_i(i32::from_ne_bytes([mask; 4])) }
}

/// A plane of `LOW` bits and one of `HIGH` bits above it (0: none).
#[inline(always)]
unsafe fn join<S: Simd, const LOW: usize, const HIGH: usize, const CHUNKS: usize>(
    p: *const u8,
) -> [S::I; CHUNKS] {
    // SAFETY: as the caller's.
    unsafe {
        let low_mask = byte_mask::<S>(u8::MAX >> (8 - LOW));
        let mut chunks = [S::splat_i(0); CHUNKS];
        for (c, chunk) in chunks.iter_mut().enumerate() {
            *chunk = S::and(field::<S, LOW, CHUNKS>(p, c), low_mask);
        }
        if HIGH > 0 {
            let high_mask = byte_mask::<S>(((1_u32 << HIGH) - 1) as u8);
            let p = p.add(CHUNKS * 8 * LOW);
            for (c, chunk) in chunks.iter_mut().enumerate() {
                let high = S::and(field::<S, HIGH, CHUNKS>(p, c), high_mask);
                *chunk = S::or(*chunk, S::shl(high, LOW as u32));
            }
        }
        chunks
    }
}

impl<const N: usize> Code for Bits<N> {
    const BITS: usize = N;
    const WIDE: bool = N == 8;

    #[inline(always)]
    unsafe fn unpack<S: Simd, const CHUNKS: usize>(p: *const u8) -> [S::I; CHUNKS] {
        // SAFETY: as the caller's.
        unsafe {
            match N {
                2 => join::<S, 2, 0, CHUNKS>(p),
                3 => join::<S, 2, 1, CHUNKS>(p),
                5 => join::<S, 4, 1, CHUNKS>(p),
                6 => join::<S, 4, 2, CHUNKS>(p),
                8 => std::array::from_fn(|c| S::load(p.add(c * 64))),
                _ => join::<S, 4, 0, CHUNKS>(p),
            }
        }
    }
}

/// e2m1 codes with e8m0 scales.
pub(super) struct Fp4;

impl Code for Fp4 {
    const BITS: usize = 4;

    #[inline(always)]
    unsafe fn unpack<S: Simd, const CHUNKS: usize>(p: *const u8) -> [S::I; CHUNKS] {
        // SAFETY: as the caller's; nibbles are below 16.
        unsafe { join::<S, 4, 0, CHUNKS>(p).map(|chunk| S::table(chunk, &MXFP4_CODES)) }
    }

    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, _: ScaleType) -> (S::F, S::F) {
        // SAFETY: as the caller's.
        unsafe {
            let scale = S::load_e8m0(p);
            (S::mul(scale, S::splat(0.5)), S::mul(scale, S::splat(-6.0)))
        }
    }

    #[inline(always)]
    fn scale_bytes(_: ScaleType) -> usize {
        LANES
    }
}

/// Calls `$run!(Code, CHUNKS)` for the codes of a quantised layout.
macro_rules! with_codes {
    ($layout:expr, $run:ident) => {
        match ($layout.encoding(), $layout.block()) {
            (Encoding::Mxfp4, _) => $run!(Fp4, 8),
            (Encoding::Affine { bits: 2 }, 32) => $run!(Bits<2>, 8),
            (Encoding::Affine { bits: 3 }, 32) => $run!(Bits<3>, 8),
            (Encoding::Affine { bits: 5 }, 32) => $run!(Bits<5>, 8),
            (Encoding::Affine { bits: 6 }, 32) => $run!(Bits<6>, 8),
            (Encoding::Affine { bits: 8 }, 32) => $run!(Bits<8>, 8),
            (_, 32) => $run!(Bits<4>, 8),
            (Encoding::Affine { bits: 2 }, _) => $run!(Bits<2>, 16),
            (Encoding::Affine { bits: 3 }, _) => $run!(Bits<3>, 16),
            (Encoding::Affine { bits: 5 }, _) => $run!(Bits<5>, 16),
            (Encoding::Affine { bits: 6 }, _) => $run!(Bits<6>, 16),
            (Encoding::Affine { bits: 8 }, _) => $run!(Bits<8>, 16),
            _ => $run!(Bits<4>, 16),
        }
    };
}
pub(super) use with_codes;
