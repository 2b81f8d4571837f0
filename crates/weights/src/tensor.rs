//! A named array of bytes with a shape, and where it comes from.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::{DType, Result, WeightsError};

/// Type and shape of a tensor, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first (row-major).
    pub shape: Vec<usize>,
}

/// A tensor's bytes: little-endian, row-major, of any alignment.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Name in the checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// `elements × dtype` bytes. Borrowed from a mapped file or the binary, owned when generated or stacked.
    pub bytes: Cow<'a, [u8]>,
}

impl Tensor<'_> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values of a float tensor. Other types are an error: an integer tensor in this place is a broken checkpoint.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let bytes: &[u8] = &self.bytes;
        let halves = || bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        Ok(match self.dtype {
            DType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            DType::BF16 => halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
            DType::F16 => halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
            found => {
                return Err(WeightsError::Type {
                    model: "checkpoint".into(),
                    tensor: self.name.clone(),
                    found,
                    allowed: "F32, F16 or BF16",
                });
            }
        })
    }
}

/// Where tensors come from: mapped files, the binary itself, or a generator.
pub trait TensorSource: Send + Sync {
    /// Every tensor's name, sorted.
    fn names(&self) -> Vec<String>;

    /// Type and shape, if there is such a tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// The tensor with its bytes. Mapped and embedded tensors are borrowed, nothing is copied.
    fn read(&self, name: &str) -> Result<Tensor<'_>>;

    /// Says that the bytes behind this tensor are no longer needed, so that the system may drop the pages. Reading it
    /// again stays possible.
    fn release(&self, _name: &str) {}
}
