//! What the caller of a transfer holds, and what it stands for.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bessemer_hal::Event;

use super::error::{TransferError, TransferResult};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the host to the device.
    Up,
    /// From the device to the host.
    Down,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "upload",
            Self::Down => "download",
        })
    }
}

/// A transfer of any length: pieces, each of which uses a slot while it is under way.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: u64,
    /// The queue that it is of.
    pub(super) queue: u64,
    pub(super) direction: Direction,
    pub(super) bytes: u64,
    progress: Mutex<Progress>,
    outcome: OnceLock<TransferResult<()>>,
    /// Nobody wants the bytes of this download any more.
    abandoned: AtomicBool,
}

#[derive(Debug)]
struct Progress {
    /// Pieces that have not ended.
    left: usize,
    nanos: u64,
    /// Of a download, by piece.
    arrived: Vec<Vec<u8>>,
}

impl Operation {
    pub(super) fn new(queue: u64, direction: Direction, bytes: u64, pieces: usize) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let arrived = match direction {
            Direction::Up => Vec::new(),
            Direction::Down => vec![Vec::new(); pieces],
        };
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            queue,
            direction,
            bytes,
            progress: Mutex::new(Progress { left: pieces, nanos: 0, arrived }),
            outcome: OnceLock::new(),
            abandoned: AtomicBool::new(false),
        })
    }

    /// `None` while it is under way.
    pub(super) fn outcome(&self) -> Option<TransferResult<()>> {
        self.outcome.get().cloned()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// A piece has come, after `nanos` on the way. The sum over all pieces, when it was the last.
    pub(super) fn arrive(&self, piece: usize, nanos: u64, bytes: Vec<u8>) -> Option<u64> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.left = progress.left.saturating_sub(1);
        progress.nanos = progress.nanos.saturating_add(nanos);
        if let Some(place) = progress.arrived.get_mut(piece) {
            *place = bytes;
        }
        (progress.left == 0 && self.outcome.set(Ok(())).is_ok()).then_some(progress.nanos)
    }

    /// It has failed; false when it had ended before.
    pub(super) fn fail(&self, error: &TransferError) -> bool {
        self.outcome.set(Err(error.clone())).is_ok()
    }

    /// The bytes of a download; empty the second time.
    fn take(&self) -> Vec<u8> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces = std::mem::take(&mut progress.arrived);
        drop(progress);
        match pieces.as_mut_slice() {
            [one] => std::mem::take(one),
            pieces => pieces.concat(),
        }
    }
}

/// A transfer under way. Cloning shares it; dropping it does not stop the transfer.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub(super) operation: Arc<Operation>,
    pub(super) reached: (Event, u64),
}

impl Ticket {
    /// Number of the transfer, unique in this process.
    pub fn id(&self) -> u64 {
        self.operation.id
    }

    /// Bytes of the transfer.
    pub fn bytes(&self) -> u64 {
        self.operation.bytes
    }

    /// What a submission waits for so that it runs behind this transfer: an upload's bytes are there, a download's have been
    /// taken. When the transfer fails, the value carries the error.
    pub fn event(&self) -> (Event, u64) {
        self.reached.clone()
    }
}

/// A download under way. Its bytes are taken once, with [`super::TransferQueue::wait_for_bytes`]; dropping it lets them go.
#[derive(Debug)]
pub struct Download {
    pub(super) ticket: Ticket,
}

impl Download {
    /// The transfer: to order a submission behind it, or to ask whether it is done.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// The bytes of a completed download.
    pub(super) fn take(&self) -> Vec<u8> {
        self.ticket.operation.take()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.ticket.operation.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bessemer_hal::DeviceError;

    use super::*;

    #[test]
    fn an_operation_ends_with_its_last_piece_in_any_order() {
        let operation = Operation::new(1, Direction::Down, 6, 3);
        assert_eq!(operation.arrive(2, 5, vec![5, 6]), None);
        assert_eq!(operation.arrive(0, 7, vec![1, 2]), None);
        assert_eq!(operation.outcome(), None);
        assert_eq!(operation.arrive(1, 1, vec![3, 4]), Some(13));
        assert_eq!(operation.outcome(), Some(Ok(())));
        assert_eq!(operation.take(), [1, 2, 3, 4, 5, 6]);
        assert!(operation.take().is_empty());
    }

    #[test]
    fn the_first_failure_stays_and_later_pieces_do_not_make_it_good() {
        let operation = Operation::new(1, Direction::Up, 6, 2);
        let lost = TransferError::from(DeviceError::Lost("gone".into()));
        let other = TransferError::from(DeviceError::Usage("other".into()));
        assert!(operation.fail(&lost));
        assert!(!operation.fail(&other));
        assert_eq!((operation.arrive(0, 1, vec![]), operation.arrive(1, 1, vec![])), (None, None));
        assert_eq!(operation.outcome(), Some(Err(lost)));
    }
}
