//! Why a feature was latched off, as one of few words: for counting, where a sentence would make a series of its own.

use bessemer_hal::DeviceError;
use serde::Serialize;

use crate::TransferError;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackReason {
    /// The device or the budget has no memory for it.
    OutOfMemory,
    /// A wait ran out of time.
    Timeout,
    /// A submission failed.
    Submission,
    /// Data arrived damaged.
    Checksum,
    /// Anything else.
    Other,
}

impl FallbackReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::OutOfMemory, Self::Timeout, Self::Submission, Self::Checksum, Self::Other];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
            Self::Submission => "submission",
            Self::Checksum => "checksum",
            Self::Other => "other",
        }
    }
}

impl From<&DeviceError> for FallbackReason {
    fn from(error: &DeviceError) -> Self {
        match error {
            DeviceError::OutOfMemory { .. } => Self::OutOfMemory,
            DeviceError::Timeout { .. } => Self::Timeout,
            DeviceError::Submission { .. } => Self::Submission,
            _ => Self::Other,
        }
    }
}

impl From<&TransferError> for FallbackReason {
    fn from(error: &TransferError) -> Self {
        match error {
            TransferError::Device(error) => error.into(),
            TransferError::Checksum { .. } => Self::Checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Direction;

    #[test]
    fn each_kind_has_its_word() {
        let damaged = TransferError::Checksum {
            direction: Direction::Up,
            buffer: "ids".into(),
            offset: 0,
            bytes: 4,
            expected: 1,
            found: 2,
        };
        for (error, name) in [
            (
                DeviceError::OutOfMemory { what: "x".into(), requested: 1, available: 0 }.into(),
                "out_of_memory",
            ),
            (DeviceError::Timeout { what: "x".into(), millis: 1 }.into(), "timeout"),
            (DeviceError::Submission { label: "x".into(), reason: "y".into() }.into(), "submission"),
            (damaged, "checksum"),
            (DeviceError::Usage("x".into()).into(), "other"),
        ] {
            assert_eq!(FallbackReason::from(&error).name(), name, "{error}");
        }
    }
}
