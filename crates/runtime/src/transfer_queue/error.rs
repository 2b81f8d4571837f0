//! What can go wrong with a transfer.

use bessemer_hal::DeviceError;

use super::ticket::Direction;

/// How a transfer failed. Clonable, because everybody who holds the ticket is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The device, a wait that ran out of time, or the submission that the transfer was ordered behind.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What arrived is not what was sent, and a second attempt on the compute queue went the same way.
    #[error(
        "{direction} of {bytes} bytes at offset {offset} of buffer '{buffer}' arrived damaged: \
         checksum {found:#010x} instead of {expected:#010x}"
    )]
    Checksum {
        /// Which way they went.
        direction: Direction,
        /// Label of the buffer.
        buffer: String,
        /// First byte of the damaged piece in its buffer.
        offset: u64,
        /// Length of the damaged piece.
        bytes: u64,
        /// CRC-32 of what was sent up, or of the first copy that came down.
        expected: u32,
        /// CRC-32 of what arrived above, or of the second copy that came down.
        found: u32,
    },
}

/// Shorthand for results of transfers.
pub type TransferResult<T> = Result<T, TransferError>;

impl From<TransferError> for DeviceError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Device(error) => error,
            TransferError::Checksum { .. } => {
                Self::Submission { label: "transfer".into(), reason: error.to_string() }
            }
        }
    }
}

impl TransferError {
    /// Whether a wait ran out of time, so that asking again may succeed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Device(DeviceError::Timeout { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_upload_names_its_place_also_as_an_error_of_the_device() {
        let error = TransferError::Checksum {
            direction: Direction::Up,
            buffer: "ids".into(),
            offset: 512,
            bytes: 77,
            expected: 0xab,
            found: 0xcd,
        };
        let text = error.to_string();
        for part in ["upload", "77 bytes", "offset 512", "'ids'", "0x000000ab", "0x000000cd"] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        assert!(!error.is_timeout());
        let DeviceError::Submission { reason, .. } = error.into() else { panic!("another kind") };
        assert_eq!(reason, text);
    }

    #[test]
    fn an_error_of_the_device_stays_what_it_is() {
        let timeout = DeviceError::Timeout { what: "x".into(), millis: 3 };
        let error = TransferError::from(timeout.clone());
        assert!(error.is_timeout());
        assert_eq!(error.to_string(), timeout.to_string());
        assert_eq!(DeviceError::from(error), timeout);
        assert!(!TransferError::from(DeviceError::Lost("x".into())).is_timeout());
    }
}
