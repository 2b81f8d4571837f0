//! How a matrix lies in memory once it is packed.

use std::ops::Range;

/// Outputs of a panel: one SIMD lane each.
pub const LANES: usize = 16;

/// Why a matrix, its source or a call about it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LinearError(String);

impl LinearError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// `scale · code + bias`, scale and bias per group of inputs (MLX `affine`).
    Affine {
        /// Bits of a code: 2, 3, 4, 5, 6 or 8.
        bits: u8,
    },
    /// OCP microscaling: e2m1 codes, one e8m0 scale per 32 inputs.
    Mxfp4,
}

/// How scales (and biases) of a quantised matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// A power of two by its exponent (mxfp4): one byte, no bias. Exponent 0 reads as zero, 255 as infinity.
    E8m0,
}

impl ScaleType {
    /// Bytes of one scale.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::E8m0 => 1,
        }
    }

    /// The smallest type that holds every one of these little-endian f32 values exactly.
    pub fn narrowest(tensors: &[&[u8]]) -> Self {
        let all = |exact: fn(f32) -> bool| {
            tensors.iter().flat_map(|bytes| bytes.as_chunks::<4>().0).all(|b| exact(f32::from_le_bytes(*b)))
        };
        if all(|v| v.to_bits() & 0xffff == 0) {
            Self::Bf16
        } else if all(|v| half::f16::from_f32(v).to_f32().to_bits() == v.to_bits()) {
            Self::F16
        } else {
            Self::F32
        }
    }
}

/// Shape and encoding of a packed matrix, or of a stack of them (experts). Values of this type are consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearLayout {
    encoding: Encoding,
    scale_type: ScaleType,
    experts: usize,
    out: usize,
    inp: usize,
    group: usize,
}

/// Outputs and inputs of a matrix, and how many of them are stacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearShape {
    /// Matrices: 1 unless these are experts.
    pub experts: usize,
    /// Rows of the matrix.
    pub out: usize,
    /// Columns of the matrix.
    pub inp: usize,
}

impl LinearShape {
    /// One matrix.
    pub fn new(out: usize, inp: usize) -> Self {
        Self { experts: 1, out, inp }
    }
}

impl LinearLayout {
    /// Any layout. `group` and `scale_type` count for [`Encoding::Affine`] only.
    ///
    /// # Errors
    /// When the encoding, the group or the shape is not one that the kernels have.
    pub fn new(
        encoding: Encoding,
        shape: LinearShape,
        group: usize,
        scale_type: ScaleType,
    ) -> Result<Self, LinearError> {
        let (group, scale_type) = match encoding {
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 => (1, ScaleType::F32),
            Encoding::Mxfp4 => (32, ScaleType::E8m0),
            Encoding::Affine { .. } => (group, scale_type),
        };
        if let Encoding::Affine { bits } = encoding {
            if !matches!(bits, 2..=6 | 8) {
                return Err(LinearError::new(format!(
                    "bits is {bits}; packed weights have 2, 3, 4, 5, 6 or 8 bits: requantise the model"
                )));
            }
            if !matches!(group, 32 | 64 | 128) {
                return Err(LinearError::new(format!(
                    "group_size is {group}; groups have 32, 64 or 128 inputs: requantise the model"
                )));
            }
            if scale_type == ScaleType::E8m0 {
                return Err(LinearError::new(
                    "scales of affine weights are f32, f16 or bf16, given e8m0: use mxfp4",
                ));
            }
        }
        let LinearShape { experts, out, inp } = shape;
        if !inp.is_multiple_of(group) {
            return Err(LinearError::new(format!(
                "{inp} inputs are not a multiple of the group size {group}: leave this matrix unquantised"
            )));
        }
        let layout = Self { encoding, scale_type, experts, out, inp, group };
        // 64 bytes hold 16 of the widest weights together with their scales, even in groups of 32.
        let bound = out
            .checked_next_multiple_of(LANES)
            .and_then(|o| o.checked_mul(experts)?.checked_mul(inp)?.checked_mul(8));
        if bound.is_none_or(|bytes| bytes > isize::MAX as usize)
            || out.max(inp).max(experts) > u32::MAX as usize
        {
            return Err(LinearError::new(format!(
                "a matrix of {experts} × {out} × {inp} does not fit the memory"
            )));
        }
        Ok(layout)
    }

    /// Unquantised weights.
    ///
    /// # Errors
    /// As [`LinearLayout::new`].
    pub fn plain(encoding: Encoding, shape: LinearShape) -> Result<Self, LinearError> {
        Self::new(encoding, shape, 1, ScaleType::F32)
    }

    /// How a weight is stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// How scales and biases are stored.
    pub fn scale_type(&self) -> ScaleType {
        self.scale_type
    }

    /// Matrices in the stack.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Outputs of one matrix.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Inputs of one matrix.
    pub fn inp(&self) -> usize {
        self.inp
    }

    /// Inputs that share a scale; 1 for unquantised weights.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Whether weights are codes, so that activations may be int8.
    pub fn is_quantised(&self) -> bool {
        matches!(self.encoding, Encoding::Affine { .. } | Encoding::Mxfp4)
    }

    /// Inputs that share an activation scale, and inputs whose codes are packed together: 32 or 64.
    pub fn block(&self) -> usize {
        if self.group == 32 { 32 } else { 64 }
    }

    /// Panels of one matrix.
    pub fn panels(&self) -> usize {
        self.out.div_ceil(LANES)
    }

    /// Bits of a code or of a plain weight.
    pub fn bits(&self) -> usize {
        match self.encoding {
            Encoding::F32 => 32,
            Encoding::F16 | Encoding::Bf16 => 16,
            Encoding::Affine { bits } => usize::from(bits),
            Encoding::Mxfp4 => 4,
        }
    }

    /// Bytes of the codes of one block in one panel.
    pub(super) fn block_bytes(&self) -> usize {
        self.block() * LANES * self.bits() / 8
    }

    /// Bytes of one group in one panel: codes, scales, biases. For plain weights, of one input.
    pub(super) fn group_bytes(&self) -> usize {
        let scales = match self.encoding {
            Encoding::Affine { .. } => 2 * LANES * self.scale_type.size(),
            Encoding::Mxfp4 => LANES,
            _ => 0,
        };
        self.group * LANES * self.bits() / 8 + scales
    }

    /// Bytes of one panel.
    pub fn panel_bytes(&self) -> usize {
        self.inp / self.group * self.group_bytes()
    }

    /// Bytes of the whole stack.
    pub fn bytes(&self) -> usize {
        self.experts * self.panels() * self.panel_bytes()
    }

    /// Bytes of panel `panel` of matrix `expert` in the packed stack.
    pub(super) fn panel_range(&self, expert: usize, panel: usize) -> Range<usize> {
        let start = (expert * self.panels() + panel) * self.panel_bytes();
        start..start + self.panel_bytes()
    }
}

/// The bit planes of a code, least significant first, as (width, shift).
pub(super) fn planes(bits: usize) -> &'static [(usize, usize)] {
    match bits {
        2 => &[(2, 0)],
        3 => &[(2, 0), (1, 2)],
        5 => &[(4, 0), (1, 4)],
        6 => &[(4, 0), (2, 4)],
        8 => &[(8, 0)],
        _ => &[(4, 0)],
    }
}

/// e2m1 codes as `2 · value + 12`: then a weight is `(scale / 2) · u − 6 · scale`, the affine form.
pub(super) const MXFP4_CODES: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
