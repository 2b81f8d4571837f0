//! The one error of every device.

/// Shorthand for results of this crate.
pub type Result<T, E = DeviceError> = std::result::Result<T, E>;

/// What can go wrong on a device. Clonable, because one failed submission is reported to everybody who waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No memory for this request; nothing changed.
    #[error("out of device memory: {what} needs {requested} bytes, {available} of the budget are free")]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes asked for.
        requested: u64,
        /// Bytes left, as far as the device knows.
        available: u64,
    },
    /// A wait ran out of time; the work goes on.
    #[error("timed out after {millis} ms waiting for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        millis: u64,
    },
    /// One submission failed; the device goes on.
    #[error("submission '{label}' failed: {reason}")]
    Submission {
        /// Label of the command buffer.
        label: String,
        /// What the device said.
        reason: String,
    },
    /// A pipeline could not be built.
    #[error("pipeline '{label}' cannot be built: {reason}")]
    Pipeline {
        /// Name of the kernel.
        label: String,
        /// What the device said.
        reason: String,
    },
    /// The device is gone; everything that lives on it is lost.
    #[error("device lost: {0}")]
    Lost(String),
    /// There is no such device, or it lacks what kernels need.
    #[error("device unavailable: {0}")]
    Unavailable(String),
    /// The call breaks a documented rule.
    #[error("wrong use of the device: {0}")]
    Usage(String),
}
