//! The sixteen lanes as four NEON registers, with `sdot`.
//!
//! `sdot` takes signed codes, so codes of eight bits go as two halves: `u = (u & 127) + 2 · 64 · (u >> 7)`.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block does what its function's contract in Simd allows"
)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Job, Simd};

#[derive(Clone, Copy)]
pub(super) struct Neon;

/// An intrinsic on each of the four registers.
macro_rules! each {
    ($f:ident, $a:expr) => {{
        let a = $a;
        [$f(a[0]), $f(a[1]), $f(a[2]), $f(a[3])]
    }};
}

/// An intrinsic on each pair of registers.
macro_rules! each2 {
    ($f:ident, $a:ident, $b:ident) => {
        [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])]
    };
}

type I = [uint32x4_t; 4];
type F = [float32x4_t; 4];

/// # Safety
/// The features are present, and the job's own promises hold.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run<J: Job>(job: J) -> J::Output {
    unsafe { job.run::<Neon>() }
}

/// `acc + Σ a · b` over four signed bytes. The intrinsic is not stable yet.
#[inline(always)]
unsafe fn sdot(acc: uint32x4_t, a: uint8x16_t, b: uint8x16_t) -> uint32x4_t {
    let mut acc = acc;
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Four half floats as floats. The intrinsic is not stable yet.
#[inline(always)]
unsafe fn widen_f16(p: *const u8) -> float32x4_t {
    let mut wide: float32x4_t;
    unsafe {
        let half = vld1_u8(p);
        asm!(
            "fcvtl {wide:v}.4s, {half:v}.4h",
            wide = out(vreg) wide,
            half = in(vreg) half,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    wide
}

impl Simd for Neon {
    type I = I;
    type F = F;
    const INT_ROWS: usize = 4;
    const FLOAT_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> I {
        unsafe {
            [
                vreinterpretq_u32_u8(vld1q_u8(p)),
                vreinterpretq_u32_u8(vld1q_u8(p.add(16))),
                vreinterpretq_u32_u8(vld1q_u8(p.add(32))),
                vreinterpretq_u32_u8(vld1q_u8(p.add(48))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn repeat4(p: *const i8) -> I {
        unsafe { [vdupq_n_u32(p.cast::<u32>().read_unaligned()); 4] }
    }
    #[inline(always)]
    unsafe fn splat_i(value: i32) -> I {
        unsafe { [vdupq_n_u32(value as u32); 4] }
    }
    #[inline(always)]
    unsafe fn and(a: I, b: I) -> I {
        unsafe { each2!(vandq_u32, a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: I, b: I) -> I {
        unsafe { each2!(vorrq_u32, a, b) }
    }
    #[inline(always)]
    unsafe fn shr(a: I, bits: u32) -> I {
        unsafe {
            let by = [vdupq_n_s32(-(bits as i32)); 4];
            each2!(vshlq_u32, a, by)
        }
    }
    #[inline(always)]
    unsafe fn shl(a: I, bits: u32) -> I {
        unsafe {
            let by = [vdupq_n_s32(bits as i32); 4];
            each2!(vshlq_u32, a, by)
        }
    }
    #[inline(always)]
    unsafe fn table(a: I, table: &[u8; 16]) -> I {
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            let mut out = a;
            for out in &mut out {
                *out = vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(*out)));
            }
            out
        }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(acc: I, codes: I, x: I) -> I {
        let mut out = acc;
        unsafe {
            for ((out, codes), x) in out.iter_mut().zip(codes).zip(x) {
                let (codes, x) = (vreinterpretq_u8_u32(codes), vreinterpretq_u8_u32(x));
                if WIDE {
                    let top = vshlq_n_u8::<6>(vshrq_n_u8::<7>(codes));
                    *out = sdot(*out, vandq_u8(codes, vdupq_n_u8(0x7f)), x);
                    *out = sdot(sdot(*out, top, x), top, x);
                } else {
                    *out = sdot(*out, codes, x);
                }
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        unsafe { each2!(vaddq_u32, a, b) }
    }
    #[inline(always)]
    unsafe fn max_i(a: I, b: I) -> I {
        unsafe { each2!(vmaxq_u32, a, b) }
    }
    #[inline(always)]
    unsafe fn reduce_max(a: I) -> i32 {
        unsafe { vmaxvq_u32(vmaxq_u32(vmaxq_u32(a[0], a[1]), vmaxq_u32(a[2], a[3]))) as i32 }
    }
    #[inline(always)]
    unsafe fn reduce_add(a: I) -> i32 {
        unsafe { vaddvq_u32(vaddq_u32(vaddq_u32(a[0], a[1]), vaddq_u32(a[2], a[3]))) as i32 }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, a: I) {
        unsafe {
            let low = vcombine_u16(vmovn_u32(a[0]), vmovn_u32(a[1]));
            let high = vcombine_u16(vmovn_u32(a[2]), vmovn_u32(a[3]));
            vst1q_u8(p.cast(), vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
        }
    }

    #[inline(always)]
    unsafe fn load_f(p: *const f32) -> F {
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn store_f(p: *mut f32, a: F) {
        unsafe {
            for (i, a) in a.into_iter().enumerate() {
                vst1q_f32(p.add(4 * i), a);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> F {
        unsafe { [widen_f16(p), widen_f16(p.add(8)), widen_f16(p.add(16)), widen_f16(p.add(24))] }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> F {
        unsafe {
            let (low, high) = (vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p.add(16))));
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(low))),
                vreinterpretq_f32_u32(vshll_high_n_u16::<16>(low)),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high))),
                vreinterpretq_f32_u32(vshll_high_n_u16::<16>(high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_e8m0(p: *const u8) -> F {
        unsafe {
            let bytes = vld1q_u8(p);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vreinterpretq_f32_u32(vshlq_n_u32::<23>(vmovl_u16(vget_low_u16(low)))),
                vreinterpretq_f32_u32(vshlq_n_u32::<23>(vmovl_high_u16(low))),
                vreinterpretq_f32_u32(vshlq_n_u32::<23>(vmovl_u16(vget_low_u16(high)))),
                vreinterpretq_f32_u32(vshlq_n_u32::<23>(vmovl_high_u16(high))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        unsafe { [vdupq_n_f32(value); 4] }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        unsafe { each2!(vaddq_f32, a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        unsafe { each2!(vmulq_f32, a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn to_f(a: I) -> F {
        unsafe { each!(vcvtq_f32_s32, each!(vreinterpretq_s32_u32, a)) }
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        unsafe { each!(vreinterpretq_u32_s32, each!(vcvtnq_s32_f32, a)) }
    }
    #[inline(always)]
    unsafe fn bits(a: F) -> I {
        unsafe { each!(vreinterpretq_u32_f32, a) }
    }
}
