//! Batches that were uploaded ahead of need.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bessemer_hal::{Event, Slice};

use super::TransferQueue;
use super::error::TransferResult;
use super::ticket::Ticket;

/// One array of a batch that is not needed yet.
#[derive(Clone, Copy, Debug)]
pub struct Prefetch<'a> {
    /// Where it goes.
    pub to: &'a Slice,
    /// As many bytes.
    pub data: &'a [u8],
}

/// Batches that were uploaded and not asked for yet, oldest first; bounded.
#[derive(Debug, Default)]
pub(super) struct Prefetched {
    batches: Mutex<VecDeque<(u64, Vec<Ticket>)>>,
}

impl Prefetched {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Vec<Ticket>)>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a batch, in the place of one of the same number; the oldest goes where there are more than `most`.
    fn put(&self, batch: u64, tickets: Vec<Ticket>, most: usize) {
        let mut batches = self.lock();
        batches.retain(|(number, _)| *number != batch);
        if batches.len() >= most {
            batches.pop_front();
        }
        batches.push_back((batch, tickets));
    }

    fn take(&self, batch: u64) -> Option<Vec<Ticket>> {
        let mut batches = self.lock();
        let at = batches.iter().position(|(number, _)| *number == batch)?;
        batches.remove(at).map(|(_, tickets)| tickets)
    }
}

impl TransferQueue {
    /// Uploads the arrays of a batch before it is needed; the caller's `batch` names it. All wait for `after`, on the device.
    /// Returns whether it was done: not while prefetching or the queue is off. At most
    /// [`super::TransferQueueConfig::max_pending_ops`] batches are remembered; a further one makes the oldest forgotten.
    ///
    /// # Errors
    /// Those of [`TransferQueue::upload`]; the batch is then not remembered.
    pub fn prefetch_next_batch(
        &self,
        batch: u64,
        arrays: &[Prefetch<'_>],
        after: Option<&(Event, u64)>,
    ) -> TransferResult<bool> {
        if !self.config.prefetch_enabled || !self.is_enabled() {
            return Ok(false);
        }
        let upload = |array: &Prefetch<'_>| self.upload(array.to, array.data, after.cloned());
        let tickets = arrays.iter().map(upload).collect::<TransferResult<Vec<_>>>()?;
        self.prefetched.put(batch, tickets, self.config.max_pending_ops);
        self.meter.count(|counts| counts.prefetches += 1);
        Ok(true)
    }

    /// The tickets of a prefetched batch, in the order of its arrays: a hit. `None`, a miss, when it was not prefetched, is
    /// forgotten, or is known to have failed: then the caller uploads it.
    pub fn take_prefetched(&self, batch: u64) -> Option<Vec<Ticket>> {
        self.settle_ended();
        let good = |tickets: &Vec<Ticket>| {
            tickets.iter().all(|ticket| !matches!(ticket.operation.outcome(), Some(Err(_))))
        };
        let tickets = self.prefetched.take(batch).filter(good);
        self.meter.count(|counts| match tickets {
            Some(_) => counts.prefetch_hits += 1,
            None => counts.prefetch_misses += 1,
        });
        tickets
    }
}
