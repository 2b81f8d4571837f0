//! Element types a safetensors file may hold.

use std::fmt;

use safetensors::Dtype;

/// Element type of a tensor. Only some can be computed with; the others are known so that they can be refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F16,
    BF16,
    F64,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    Bool,
    /// 8 bits: 4 exponent, 3 mantissa.
    F8E4M3,
    /// 8 bits: 5 exponent, 2 mantissa.
    F8E5M2,
    /// 8 bits: exponent only (the scale of the mx formats).
    F8E8M0,
    /// A type that no supported format uses (complex, 4 and 6 bit floats, …).
    Other {
        /// Its spelling in the file.
        name: &'static str,
        /// Bits per element.
        bits: usize,
    },
}

impl DType {
    /// Bits per element.
    pub fn bits(self) -> usize {
        match self {
            Self::F64 | Self::U64 | Self::I64 => 64,
            Self::F32 | Self::U32 | Self::I32 => 32,
            Self::F16 | Self::BF16 | Self::U16 | Self::I16 => 16,
            Self::U8 | Self::I8 | Self::Bool | Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 => 8,
            Self::Other { bits, .. } => bits,
        }
    }

    /// Whether plain weights may be stored in it (float32, float16, bfloat16).
    pub fn is_weight(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// The spelling of the safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
            Self::U8 => "U8",
            Self::U16 => "U16",
            Self::U32 => "U32",
            Self::U64 => "U64",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::Bool => "BOOL",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E8M0 => "F8_E8M0",
            Self::Other { name, .. } => name,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F64 => Self::F64,
            Dtype::U8 => Self::U8,
            Dtype::U16 => Self::U16,
            Dtype::U32 => Self::U32,
            Dtype::U64 => Self::U64,
            Dtype::I8 => Self::I8,
            Dtype::I16 => Self::I16,
            Dtype::I32 => Self::I32,
            Dtype::I64 => Self::I64,
            Dtype::BOOL => Self::Bool,
            Dtype::F8_E4M3 => Self::F8E4M3,
            Dtype::F8_E5M2 => Self::F8E5M2,
            Dtype::F8_E8M0 => Self::F8E8M0,
            Dtype::F4 => Self::Other { name: "F4", bits: 4 },
            Dtype::F6_E2M3 => Self::Other { name: "F6_E2M3", bits: 6 },
            Dtype::F6_E3M2 => Self::Other { name: "F6_E3M2", bits: 6 },
            Dtype::F8_E4M3FNUZ => Self::Other { name: "F8_E4M3FNUZ", bits: 8 },
            Dtype::F8_E5M2FNUZ => Self::Other { name: "F8_E5M2FNUZ", bits: 8 },
            Dtype::C64 => Self::Other { name: "C64", bits: 64 },
            other => Self::Other { name: "unknown", bits: other.bitsize() },
        }
    }
}
