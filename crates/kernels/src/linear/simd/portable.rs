//! The sixteen lanes as arrays.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block does what its function's contract in Simd allows"
)]

use super::Simd;

#[derive(Clone, Copy)]
pub(super) struct Portable;

type I = [u32; 16];
type F = [f32; 16];

#[inline(always)]
fn map<A: Copy, B: Copy, C>(a: [A; 16], b: [B; 16], f: impl Fn(A, B) -> C) -> [C; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type I = I;
    type F = F;
    const INT_ROWS: usize = 4;
    const FLOAT_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> I {
        unsafe { p.cast::<I>().read_unaligned() }.map(u32::from_le)
    }
    #[inline(always)]
    unsafe fn repeat4(p: *const i8) -> I {
        [u32::from_le(unsafe { p.cast::<u32>().read_unaligned() }); 16]
    }
    #[inline(always)]
    unsafe fn splat_i(value: i32) -> I {
        [value as u32; 16]
    }
    #[inline(always)]
    unsafe fn and(a: I, b: I) -> I {
        map(a, b, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(a: I, b: I) -> I {
        map(a, b, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn shr(a: I, bits: u32) -> I {
        a.map(|a| a >> bits)
    }
    #[inline(always)]
    unsafe fn shl(a: I, bits: u32) -> I {
        a.map(|a| a << bits)
    }
    #[inline(always)]
    unsafe fn table(a: I, table: &[u8; 16]) -> I {
        a.map(|a| u32::from_le_bytes(a.to_le_bytes().map(|code| table[usize::from(code & 15)])))
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(acc: I, codes: I, x: I) -> I {
        let sums = map(codes, x, |codes, x| {
            let (codes, x) = (codes.to_le_bytes(), x.to_le_bytes());
            (0..4).map(|i| i32::from(codes[i]) * i32::from(x[i] as i8)).sum::<i32>() as u32
        });
        map(acc, sums, u32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        map(a, b, u32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn max_i(a: I, b: I) -> I {
        map(a, b, u32::max)
    }
    #[inline(always)]
    unsafe fn reduce_max(a: I) -> i32 {
        a.into_iter().fold(0, u32::max) as i32
    }
    #[inline(always)]
    unsafe fn reduce_add(a: I) -> i32 {
        a.into_iter().fold(0, u32::wrapping_add) as i32
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, a: I) {
        unsafe { p.cast::<[i8; 16]>().write_unaligned(a.map(|a| a as i8)) }
    }

    #[inline(always)]
    unsafe fn load_f(p: *const f32) -> F {
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_f(p: *mut f32, a: F) {
        unsafe { p.cast::<F>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> F {
        unsafe { p.cast::<[[u8; 2]; 16]>().read() }.map(|v| half::f16::from_le_bytes(v).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> F {
        unsafe { p.cast::<[[u8; 2]; 16]>().read() }
            .map(|v| f32::from_bits(u32::from(u16::from_le_bytes(v)) << 16))
    }
    #[inline(always)]
    unsafe fn load_e8m0(p: *const u8) -> F {
        unsafe { p.cast::<[u8; 16]>().read() }.map(|v| f32::from_bits(u32::from(v) << 23))
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        [value; 16]
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn to_f(a: I) -> F {
        a.map(|a| a as i32 as f32)
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        a.map(|a| a.round_ties_even() as i32 as u32)
    }
    #[inline(always)]
    unsafe fn bits(a: F) -> I {
        a.map(f32::to_bits)
    }
}
