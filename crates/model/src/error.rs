//! What can go wrong between a checkpoint and a running network.

use bessemer_hal::DeviceError;
use bessemer_weights::WeightsError;

/// Why a model cannot be loaded or run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// config.json says something that cannot be.
    #[error("config.json: {field}: {rule}; given: {given}; {cure}")]
    Config {
        /// The key, with its path.
        field: String,
        /// What must hold.
        rule: String,
        /// What was found.
        given: String,
        /// What to do about it.
        cure: String,
    },
    /// A tensor is missing, left over, misshapen or unreadable.
    #[error(transparent)]
    Weights(std::sync::Arc<WeightsError>),
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A matrix has a shape or an encoding that no kernel takes.
    #[error("{name}: {reason}")]
    Matrix {
        /// The tensor's prefix.
        name: String,
        /// The rule and the value.
        reason: String,
    },
    /// A KV cache cannot have this shape.
    #[error("KV cache: {0}")]
    Cache(String),
    /// A batch contradicts itself or the model.
    #[error("batch: {0}")]
    Batch(String),
}

impl From<WeightsError> for ModelError {
    fn from(error: WeightsError) -> Self {
        Self::Weights(std::sync::Arc::new(error))
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

pub(crate) fn config_error(field: &str, rule: &str, given: impl ToString, cure: &str) -> ModelError {
    ModelError::Config { field: field.into(), rule: rule.into(), given: given.to_string(), cure: cure.into() }
}
