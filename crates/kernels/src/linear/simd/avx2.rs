//! The sixteen lanes as two AVX2 registers.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block does what its function's contract in Simd allows"
)]

use std::arch::x86_64::*;

use super::{Job, Simd};

#[derive(Clone, Copy)]
pub(super) struct Avx2;

type I = [__m256i; 2];
type F = [__m256; 2];

/// # Safety
/// The features are present, and the job's own promises hold.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<J: Job>(job: J) -> J::Output {
    unsafe { job.run::<Avx2>() }
}

/// `Σ codes · x` over four bytes; codes of at most seven bits, so that a pair of products fits 16 bits.
#[inline(always)]
unsafe fn dot7(codes: __m256i, x: __m256i) -> __m256i {
    unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)) }
}

impl Simd for Avx2 {
    type I = I;
    type F = F;
    const INT_ROWS: usize = 4;
    const FLOAT_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> I {
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn repeat4(p: *const i8) -> I {
        unsafe { [_mm256_set1_epi32(p.cast::<i32>().read_unaligned()); 2] }
    }

    #[inline(always)]
    unsafe fn splat_i(value: i32) -> I {
        unsafe { [_mm256_set1_epi32(value); 2] }
    }

    #[inline(always)]
    unsafe fn and(a: I, b: I) -> I {
        unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn or(a: I, b: I) -> I {
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn shr(a: I, bits: u32) -> I {
        unsafe {
            let n = _mm_cvtsi32_si128(bits as i32);
            [_mm256_srl_epi32(a[0], n), _mm256_srl_epi32(a[1], n)]
        }
    }

    #[inline(always)]
    unsafe fn shl(a: I, bits: u32) -> I {
        unsafe {
            let n = _mm_cvtsi32_si128(bits as i32);
            [_mm256_sll_epi32(a[0], n), _mm256_sll_epi32(a[1], n)]
        }
    }

    #[inline(always)]
    unsafe fn table(a: I, table: &[u8; 16]) -> I {
        unsafe {
            let t = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(t, a[0]), _mm256_shuffle_epi8(t, a[1])]
        }
    }

    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(acc: I, codes: I, x: I) -> I {
        unsafe {
            std::array::from_fn(|i| {
                if WIDE {
                    // 255 · 127 · 2 would saturate: the top bit goes its own way.
                    let low = dot7(_mm256_and_si256(codes[i], _mm256_set1_epi8(0x7f)), x[i]);
                    let top = dot7(_mm256_and_si256(codes[i], _mm256_set1_epi8(-128)), x[i]);
                    _mm256_add_epi32(acc[i], _mm256_add_epi32(low, top))
                } else {
                    _mm256_add_epi32(acc[i], dot7(codes[i], x[i]))
                }
            })
        }
    }

    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn max_i(a: I, b: I) -> I {
        unsafe { [_mm256_max_epi32(a[0], b[0]), _mm256_max_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn reduce_max(a: I) -> i32 {
        unsafe {
            let a = _mm256_max_epi32(a[0], a[1]);
            let a = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_max_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
        }
    }
    #[inline(always)]
    unsafe fn reduce_add(a: I) -> i32 {
        unsafe {
            let a = _mm256_add_epi32(a[0], a[1]);
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, a: I) {
        unsafe {
            // Low bytes of each half's lanes come together in its two quarters, then side by side.
            let pick = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1,
                -1, -1, -1, -1, -1, -1, -1,
            );
            for (half, a) in a.into_iter().enumerate() {
                let bytes = _mm256_shuffle_epi8(a, pick);
                let both =
                    _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
                _mm_storel_epi64(p.add(8 * half).cast(), both);
            }
        }
    }

    #[inline(always)]
    unsafe fn load_f(p: *const f32) -> F {
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }

    #[inline(always)]
    unsafe fn store_f(p: *mut f32, a: F) {
        unsafe {
            _mm256_storeu_ps(p, a[0]);
            _mm256_storeu_ps(p.add(8), a[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> F {
        unsafe {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(16).cast()))]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> F {
        unsafe {
            std::array::from_fn(|i| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(16 * i).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            })
        }
    }
    #[inline(always)]
    unsafe fn load_e8m0(p: *const u8) -> F {
        unsafe {
            std::array::from_fn(|i| {
                let wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(8 * i).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(wide))
            })
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    unsafe fn to_f(a: I) -> F {
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }

    #[inline(always)]
    unsafe fn round(a: F) -> I {
        unsafe { [_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1])] }
    }

    #[inline(always)]
    unsafe fn bits(a: F) -> I {
        unsafe { [_mm256_castps_si256(a[0]), _mm256_castps_si256(a[1])] }
    }
}
