//! The one error of the engine, cheap to clone because one failed step is reported to every request in it.

use std::sync::Arc;

use bessemer_hal::DeviceError;
use bessemer_weights::WeightsError;

/// Shorthand for results of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why the engine refused or failed something.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A value of a request or an option breaks a rule; nothing was started.
    #[error("{field}: {rule}, but it is {given}. {cure}")]
    Invalid {
        /// The field, as the request or the options spell it.
        field: &'static str,
        /// The rule it breaks.
        rule: String,
        /// The given value.
        given: String,
        /// What to do.
        cure: String,
    },
    /// As many requests as allowed are running and waiting.
    #[error(
        "the engine is busy: {in_flight} requests are running or waiting, and {limit} are allowed. Try again in a \
         moment, or raise max_queue"
    )]
    Busy {
        /// Requests in the engine now.
        in_flight: usize,
        /// `max_sequences` + `max_queue`.
        limit: usize,
    },
    /// The engine is draining or has been shut down.
    #[error(
        "the engine is shutting down and takes no new requests. Send it to another one, or start it again"
    )]
    ShuttingDown,
    /// The files of the model could not be opened or do not fit.
    #[error(transparent)]
    Weights(Arc<WeightsError>),
    /// The network could not be built.
    #[error("model {name:?}: {reason}")]
    Model {
        /// The model.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// The tokenizer or the chat template of the model is unusable.
    #[error("model {name:?}: {reason}")]
    Text {
        /// The model.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// The device refused or failed; only the requests of that step are affected.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device is gone for good. Everybody inside is told so, and so is everybody who asks from then on.
    #[error("the device is lost: {reason}. Load the engine again, or restart the program")]
    DeviceLost {
        /// What the device said.
        reason: String,
    },
    /// A step broke off through a bug; only the requests of that step are affected.
    #[error("the step broke off: {reason}. This is a bug in the engine: please report it")]
    Step {
        /// The panic's message.
        reason: String,
    },
    /// The engine's thread could not be started or has ended through a bug.
    #[error("the engine's thread is gone: {reason}. Load the engine again")]
    Stopped {
        /// What is known.
        reason: String,
    },
}

impl From<WeightsError> for EngineError {
    fn from(error: WeightsError) -> Self {
        Self::Weights(Arc::new(error))
    }
}

impl EngineError {
    /// An [`EngineError::Invalid`].
    pub(crate) fn invalid(
        field: &'static str,
        rule: impl Into<String>,
        given: impl ToString,
        cure: impl Into<String>,
    ) -> Self {
        Self::Invalid { field, rule: rule.into(), given: given.to_string(), cure: cure.into() }
    }
}
