//! The instruction sets that CPU kernels are written for, and which of them this machine has.

use std::sync::OnceLock;

/// A level of the processor's vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust: what the compiler makes of it for the build's target.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL, besides everything of [`Isa::Avx2`].
    Avx512,
    /// AArch64 with its standard vectors.
    Neon,
}

impl Isa {
    /// Every level, the plain one first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Neon];

    /// The best level of this machine; looked up once.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            [Self::Avx512, Self::Avx2, Self::Neon]
                .into_iter()
                .find(|isa| isa.available())
                .unwrap_or(Self::Portable)
        })
    }

    /// Whether this machine can run it.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns, reason = "which levels exist depends on the target")]
            _ => false,
        }
    }

    /// The levels that this machine can run: what tests go through.
    pub fn all_available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.available())
    }
}
