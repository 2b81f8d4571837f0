//! How a model runs: the choices that do not come with the checkpoint.

use bessemer_kernels::KvType;
use serde::{Deserialize, Serialize};

/// Precision of the activations that enter a quantised linear layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationMode {
    /// Whatever is faster on the device: int8 for quantised weights, f32 for others.
    #[default]
    Auto,
    /// f32 everywhere: what the oracle data in float32 is compared with.
    F32,
    /// int8 with a scale per group wherever weights are quantised.
    Int8,
}

/// Storage of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvPrecision {
    /// f16.
    #[default]
    Auto,
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element.
    F16,
}

impl KvPrecision {
    /// As the kernels name it.
    pub fn kv_type(self) -> KvType {
        match self {
            Self::F32 => KvType::F32,
            Self::Auto | Self::F16 => KvType::F16,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Auto | Self::F16 => 2,
        }
    }
}

/// How a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// Precision of activations.
    pub activations: ActivationMode,
    /// Storage of keys and values.
    pub kv: KvPrecision,
}
