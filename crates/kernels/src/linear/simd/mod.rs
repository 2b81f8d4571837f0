//! Sixteen lanes of every instruction set, behind one trait.
//!
//! - A kernel is written *once*, over [`Simd`], as a [`Job`]; [`Level::run`] compiles it per instruction set inside a
//!   function that enables the set, so everything below is `#[inline(always)]`.
//! - The width is *sixteen lanes everywhere* (one AVX-512 register, two of AVX2, four of NEON): the packed layout, the
//!   order of every sum and therefore the bits of the result are the same on each of them.
//! - A [`Level`] is a *proof*: it comes from detection alone, so running a job through it is safe.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::Isa;

/// Vectors of sixteen 32-bit lanes. `I` is also seen as 64 bytes.
///
/// # Safety
/// Every function must only run where the instruction set is present; those that take pointers read or write
/// sixteen lanes (or the bytes named) there, at any alignment.
pub(crate) trait Simd: Copy {
    type I: Copy;
    type F: Copy;

    /// Rows whose integer sums fit the registers at once: 8 or 4.
    const INT_ROWS: usize;
    /// Rows whose pairs of float sums fit the registers at once: 8 or 2.
    const FLOAT_ROWS: usize;

    /// 64 bytes.
    unsafe fn load(p: *const u8) -> Self::I;
    /// Four bytes, repeated in every lane.
    unsafe fn repeat4(p: *const i8) -> Self::I;
    unsafe fn splat_i(value: i32) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift of each lane, by less than 32.
    unsafe fn shr(a: Self::I, bits: u32) -> Self::I;
    /// Shift of each lane, by less than 32.
    unsafe fn shl(a: Self::I, bits: u32) -> Self::I;
    /// Bytes (each below 16) replaced by the table's.
    unsafe fn table(a: Self::I, table: &[u8; 16]) -> Self::I;
    /// `acc + Σ codes · x` over the four bytes of a lane: codes unsigned, `x` signed and above -128. With `WIDE`,
    /// codes use all eight bits, otherwise at most seven.
    unsafe fn dot<const WIDE: bool>(acc: Self::I, codes: Self::I, x: Self::I) -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// Larger of two non-negative lanes.
    unsafe fn max_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn reduce_max(a: Self::I) -> i32;
    unsafe fn reduce_add(a: Self::I) -> i32;
    /// Low byte of each lane to 16 bytes.
    unsafe fn store_bytes(p: *mut i8, a: Self::I);

    unsafe fn load_f(p: *const f32) -> Self::F;
    unsafe fn store_f(p: *mut f32, a: Self::F);
    unsafe fn load_f16(p: *const u8) -> Self::F;
    unsafe fn load_bf16(p: *const u8) -> Self::F;
    /// Sixteen exponents.
    unsafe fn load_e8m0(p: *const u8) -> Self::F;
    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn to_f(a: Self::I) -> Self::F;
    /// Nearest integer, ties to even. Lanes outside of i32 give any value.
    unsafe fn round(a: Self::F) -> Self::I;
    unsafe fn bits(a: Self::F) -> Self::I;
}

/// Work written over [`Simd`].
pub(crate) trait Job {
    type Output;

    /// Runs with instruction set `S`. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// `S` is present, and what the job's own fields promise holds.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// A set of instructions that this machine was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// The best level that is no more than `isa`.
    pub(crate) fn of(isa: Isa) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if Isa::Avx512.available() && is_x86_feature_detected!("avx512vnni") => {
                Self(Kind::Avx512)
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 if Isa::Avx2.available() => Self(Kind::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon if Isa::Neon.available() && std::arch::is_aarch64_feature_detected!("dotprod") => {
                Self(Kind::Neon)
            }
            _ => Self(Kind::Portable),
        }
    }

    /// Runs a job.
    ///
    /// # Safety
    /// What the job's own fields promise holds.
    pub(crate) unsafe fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            // SAFETY: plain Rust; the caller vouches for the job.
            Kind::Portable => unsafe { job.run::<portable::Portable>() },
            // SAFETY: detected before this value was made; the caller vouches for the job.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::run(job) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { avx512::run(job) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::run(job) },
        }
    }
}
