//! Eight lanes in plain Rust: runs everywhere, and is what the others are tested against.

use half::f16;

use super::Simd;

#[derive(Clone, Copy)]
pub(super) struct Portable(());

impl Portable {
    pub(super) fn new() -> Self {
        Self(())
    }
}

type V = [f32; 8];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = V;
    const LANES: usize = 8;
    const WIDE_TILES: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 8]
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        // Adding 1.5 · 2^23 leaves no bits for the fraction; every caller's |a| is far below 2^22.
        const ALIGN: f32 = 12_582_912.0;
        a.map(|a| (a + ALIGN) - ALIGN)
    }
    #[inline(always)]
    fn scale2(self, a: V, n: V) -> V {
        zip(a, n, |a, n| a * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn zero_below(self, x: V, limit: f32, value: V) -> V {
        zip(x, value, |x, v| if x >= limit { v } else { 0.0 })
    }
    #[inline(always)]
    fn reduce_add(self, a: V) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn reduce_max(self, a: V) -> f32 {
        a.into_iter().fold(a[0], |m, x| if x > m { x } else { m })
    }
    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> V {
        // SAFETY: the caller vouches for eight elements; an array has the alignment of its element.
        unsafe { from.cast::<V>().read() }
    }
    #[inline(always)]
    unsafe fn load_f16_ptr(self, from: *const u16) -> V {
        // SAFETY: the caller vouches for eight elements; an array has the alignment of its element.
        unsafe { from.cast::<[u16; 8]>().read() }.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32, v: V) {
        // SAFETY: the caller vouches for room for eight elements.
        unsafe { to.cast::<V>().write(v) }
    }
}
