//! f32 vectors of whatever width the machine has, for the kernels that are not matrix products.
//!
//! - A kernel is written *once*, as a [`Task`] over a [`Simd`]; [`run`] compiles it for every instruction set and
//!   calls the right one. The rejected option, one copy of each kernel per instruction set, is what `linear` does for
//!   its integer dot products, where the sets have nothing in common.
//! - A [`Simd`] value is a *token*: only [`run`] makes one, after it has asked the machine. So its arithmetic is safe
//!   to call; only loads and stores through pointers are not.
//! - Results may differ in the last bits from one instruction set to the next (fused or separate multiply-add), never
//!   between two calls on one machine.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::Isa;

/// Vectors of [`Simd::LANES`] f32.
pub(crate) trait Simd: Copy {
    /// The register.
    type V: Copy;
    /// f32 in a register; at most 16.
    const LANES: usize;
    /// There are 32 registers: enough to keep a tile of 24 results beside its operands.
    const WIDE_TILES: bool;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// Lane-wise sum.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise difference.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise product.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the machine can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where `a` is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where `a` is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a · 2^n` for integers `n` from −126 to 127.
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V;
    /// `value` where `x >= limit`, 0 elsewhere (also where `x` is not a number).
    fn zero_below(self, x: Self::V, limit: f32, value: Self::V) -> Self::V;
    /// Sum of the lanes, always in the same order.
    fn reduce_add(self, a: Self::V) -> f32;
    /// Largest lane.
    fn reduce_max(self, a: Self::V) -> f32;

    /// [`Simd::LANES`] elements from `from`.
    ///
    /// # Safety
    /// That many elements can be read.
    unsafe fn load_ptr(self, from: *const f32) -> Self::V;
    /// [`Simd::LANES`] half floats from `from`, widened.
    ///
    /// # Safety
    /// That many elements can be read.
    unsafe fn load_f16_ptr(self, from: *const u16) -> Self::V;
    /// Writes [`Simd::LANES`] elements to `to`.
    ///
    /// # Safety
    /// That many elements can be written.
    unsafe fn store_ptr(self, to: *mut f32, v: Self::V);

    /// Asks for `row` to be brought near; never needed, only faster.
    #[inline(always)]
    fn prefetch<T>(self, _row: &[T]) {}

    /// The first [`Simd::LANES`] elements of `from`; those it lacks are `fill`.
    #[inline(always)]
    fn load(self, from: &[f32], fill: f32) -> Self::V {
        if from.len() >= Self::LANES {
            // SAFETY: the slice is long enough.
            unsafe { self.load_ptr(from.as_ptr()) }
        } else {
            let mut lanes = [fill; 16];
            lanes[..from.len()].copy_from_slice(from);
            // SAFETY: no register is wider than 16 lanes.
            unsafe { self.load_ptr(lanes.as_ptr()) }
        }
    }

    /// As [`Simd::load`], from half floats, with 0 for those that lack.
    #[inline(always)]
    fn load_f16(self, from: &[u16]) -> Self::V {
        if from.len() >= Self::LANES {
            // SAFETY: the slice is long enough.
            unsafe { self.load_f16_ptr(from.as_ptr()) }
        } else {
            let mut lanes = [0; 16];
            lanes[..from.len()].copy_from_slice(from);
            // SAFETY: no register is wider than 16 lanes.
            unsafe { self.load_f16_ptr(lanes.as_ptr()) }
        }
    }

    /// Writes the lanes that `to` has room for.
    #[inline(always)]
    fn store(self, to: &mut [f32], v: Self::V) {
        if to.len() >= Self::LANES {
            // SAFETY: the slice is long enough.
            unsafe { self.store_ptr(to.as_mut_ptr(), v) }
        } else {
            let mut lanes = [0.0; 16];
            // SAFETY: no register is wider than 16 lanes.
            unsafe { self.store_ptr(lanes.as_mut_ptr(), v) }
            to.copy_from_slice(&lanes[..to.len()]);
        }
    }

    /// `2^x` for `x ≤ 127`, within 2e-7 of the value; 0 below −126.
    #[inline(always)]
    fn exp2(self, x: Self::V) -> Self::V {
        let n = self.round(self.max(x, self.splat(-126.0)));
        let value = self.exp2_fraction(self.sub(self.max(x, self.splat(-126.0)), n), n);
        self.zero_below(x, -126.0, value)
    }

    /// `e^x` for `x ≤ 88`, within 3e-7 of the value; 0 below −87.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        // n·ln 2 is taken off in two parts, of which the first is exact: no fused instruction is needed.
        let clamped = self.max(x, self.splat(-87.0));
        let n = self.round(self.mul(clamped, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-0.693_359_4), clamped);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let value = self.exp2_fraction(self.mul(r, self.splat(std::f32::consts::LOG2_E)), n);
        self.zero_below(x, -87.0, value)
    }

    /// `2^(r + n)` for `|r| ≤ 0.5`: the polynomial of degree 5 with the smallest relative error that is exactly 1 at 0.
    #[inline(always)]
    #[allow(clippy::approx_constant, reason = "the best coefficient near ln 2 is not ln 2")]
    fn exp2_fraction(self, r: Self::V, n: Self::V) -> Self::V {
        let mut p = self.splat(0.001_326_473);
        for c in [0.009_671_514, 0.055_507_336, 0.240_222_42, 0.693_147, 1.0] {
            p = self.fma(p, r, self.splat(c));
        }
        self.scale2(p, n)
    }
}

/// What can be compiled for every instruction set. Implementations mark `run` and all it calls `#[inline(always)]`:
/// a function that is not inlined falls back to the build's own target.
pub(crate) trait Task {
    /// What it gives.
    type Output;
    /// Does it.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Runs `task` with the instructions of `isa`, or with plain ones where the machine lacks them.
pub(crate) fn run<T: Task>(isa: Isa, task: T) -> T::Output {
    if !isa.available() {
        return task.run(portable::Portable::new());
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has been asked.
        Isa::Avx512 => unsafe { avx512::run(task) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has been asked.
        Isa::Avx2 => unsafe { avx2::run(task) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the machine has been asked.
        Isa::Neon => unsafe { neon::run(task) },
        _ => task.run(portable::Portable::new()),
    }
}

/// Rounds `len` up to whole registers of the widest instruction set.
pub(crate) const fn padded(len: usize) -> usize {
    len.div_ceil(16) * 16
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exponentials<'a>(&'a [f32], &'a mut Vec<(f32, f32)>);

    impl Task for Exponentials<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for x in self.0.chunks(S::LANES) {
                let (mut e2, mut e) = ([0.0; 16], [0.0; 16]);
                s.store(&mut e2[..x.len()], s.exp2(s.load(x, 0.0)));
                s.store(&mut e[..x.len()], s.exp(s.load(x, 0.0)));
                self.1.extend(e2.into_iter().zip(e).take(x.len()));
            }
        }
    }

    #[test]
    fn exponentials_are_accurate() {
        let xs: Vec<f32> = (0..200_000).map(|i| -86.9 + 0.000_435 * i as f32).collect();
        for isa in Isa::all_available() {
            let mut out = vec![];
            run(isa, Exponentials(&xs, &mut out));
            for (x, (e2, e)) in xs.iter().zip(out) {
                let x = f64::from(*x);
                assert!((f64::from(e2) / x.exp2() - 1.0).abs() < 2e-7, "{isa:?} 2^{x} = {e2}");
                assert!((f64::from(e) / x.exp() - 1.0).abs() < 3e-7, "{isa:?} e^{x} = {e}");
            }
            let edges = [0.0, f32::NEG_INFINITY, -1e30, f32::NAN, -200.0];
            let mut out = vec![];
            run(isa, Exponentials(&edges, &mut out));
            assert_eq!(out, [(1.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], "{isa:?}");
        }
    }

    struct Moves<'a>(&'a mut Vec<f32>);

    impl Task for Moves<'_> {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> usize {
            let halves: Vec<u16> =
                (0..S::LANES).map(|i| half::f16::from_f32(i as f32 - 2.5).to_bits()).collect();
            let mut values = vec![0.0; S::LANES];
            s.store(&mut values, s.load_f16(&halves));
            self.0.extend(values);
            let ramp: Vec<f32> = (0..S::LANES).map(|i| i as f32).collect();
            self.0.push(s.reduce_add(s.load(&ramp, 0.0)));
            self.0.push(s.reduce_max(s.load(&ramp[..2], 5.0)));
            S::LANES
        }
    }

    #[test]
    fn lanes_move_as_named() {
        for isa in Isa::all_available() {
            let mut out = vec![];
            let lanes = run(isa, Moves(&mut out));
            let mut expected: Vec<f32> = (0..lanes).map(|i| i as f32 - 2.5).collect();
            expected.push((lanes * (lanes - 1) / 2) as f32);
            expected.push(if lanes > 2 { 5.0 } else { 1.0 });
            assert_eq!(out, expected, "{isa:?}");
        }
    }
}
