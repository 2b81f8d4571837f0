//! The slots of the ring: who uses which, and who is done.
//!
//! A slot is *free*, then *filling* (one thread writes its memory and submits), then *in flight* (the device has it), then
//! *draining* (one thread takes out what came), then free again:
//!
//! ```text
//! free ── next ──> filling ── launch ──> in flight ── claim ──> draining ── drop ──> free
//!                     └─────────────── drop (nothing was submitted) ─────────────────┘
//! ```
//!
//! - *Nobody waits here for the device.* Whoever finds no free slot is given the oldest flight, waits for that without a
//!   lock, and claims it. So the ring needs no thread of its own, and a flight that never ends holds only its own slot.
//! - *Guards* stand for filling and draining, so a slot returns on every way out, and only then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A fixed number of slots, each with at most one piece of work `W` in flight.
#[derive(Debug)]
pub(super) struct Slots<W> {
    table: Mutex<Table<W>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Table<W> {
    /// In the order in which they became free, so that the ring goes round.
    free: VecDeque<usize>,
    /// In the order in which they were launched.
    flights: VecDeque<Flight<W>>,
    /// Numbers of flights that are being drained.
    draining: Vec<u64>,
    launched: u64,
    total: usize,
}

/// Work that the device has.
#[derive(Debug)]
pub(super) struct Flight<W> {
    pub(super) slot: usize,
    /// Which launch it was: tells it from a later one in the same slot.
    number: u64,
    pub(super) work: Arc<W>,
}

impl<W> Clone for Flight<W> {
    fn clone(&self) -> Self {
        Self { slot: self.slot, number: self.number, work: self.work.clone() }
    }
}

/// What a thread that wants a slot is given.
pub(super) enum Next<'s, W> {
    /// A slot of its own.
    Slot(Filling<'s, W>),
    /// All are taken; this flight is the oldest.
    Full(Flight<W>),
    /// All are taken by other threads, which did not let go in time.
    TimedOut,
}

/// What a thread that waits for one piece of work is given.
pub(super) enum Look<W> {
    /// Its flight, to be waited for and claimed.
    Flight(Flight<W>),
    /// What it waited for has come about.
    Done,
    /// Another thread is draining it, and did not end in time.
    TimedOut,
}

impl<W> Slots<W> {
    pub(super) fn new(total: usize) -> Self {
        let table = Table {
            free: (0..total).collect(),
            flights: VecDeque::new(),
            draining: Vec::new(),
            launched: 0,
            total,
        };
        Self { table: Mutex::new(table), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Table<W>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free slot, or else what to wait for. Waits itself only while other threads fill or drain every slot.
    pub(super) fn next(&self, deadline: Instant) -> Next<'_, W> {
        let found = self.until(deadline, |table| {
            let free =
                table.free.pop_front().map(|slot| Next::Slot(Filling { slots: self, slot, kept: true }));
            free.or_else(|| table.flights.front().cloned().map(Next::Full))
        });
        found.unwrap_or(Next::TimedOut)
    }

    /// The first flight that `wanted` picks. Without one, waits until there is one or `done` says that it is over.
    /// `done` is asked under the lock of the table.
    pub(super) fn look(
        &self,
        deadline: Instant,
        wanted: impl Fn(&W) -> bool,
        done: impl Fn() -> bool,
    ) -> Look<W> {
        let found = self.until(deadline, |table| {
            if done() {
                return Some(Look::Done);
            }
            table.flights.iter().find(|flight| wanted(&flight.work)).cloned().map(Look::Flight)
        });
        found.unwrap_or(Look::TimedOut)
    }

    /// Waits until `view` finds something; `None` at the deadline.
    fn until<'s, R>(
        &'s self,
        deadline: Instant,
        mut view: impl FnMut(&mut Table<W>) -> Option<R>,
    ) -> Option<R> {
        let mut table: MutexGuard<'s, Table<W>> = self.lock();
        loop {
            if let Some(found) = view(&mut table) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            table = self.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a flight that has ended is drained, by whichever thread; false at the deadline.
    pub(super) fn drained(&self, flight: &Flight<W>, deadline: Instant) -> bool {
        self.until(deadline, |table| {
            let flying = table.flights.iter().any(|f| f.number == flight.number);
            (!flying && !table.draining.contains(&flight.number)).then_some(())
        })
        .is_some()
    }

    /// Every flight, oldest first.
    pub(super) fn flights(&self) -> Vec<Flight<W>> {
        self.lock().flights.iter().cloned().collect()
    }

    /// Slots that are not free.
    pub(super) fn taken(&self) -> usize {
        let table = self.lock();
        table.total - table.free.len()
    }

    /// Takes over a flight that has ended; `None` when another thread was first.
    pub(super) fn claim(&self, flight: &Flight<W>) -> Option<Draining<'_, W>> {
        let mut table = self.lock();
        let at = table.flights.iter().position(|f| f.number == flight.number)?;
        let flight = table.flights.remove(at)?;
        table.draining.push(flight.number);
        Some(Draining { slots: self, slot: flight.slot, number: flight.number })
    }

    fn free(&self, slot: usize) {
        self.lock().free.push_back(slot);
        self.changed.notify_all();
    }
}

/// A slot that this thread fills. Dropping it frees the slot.
pub(super) struct Filling<'s, W> {
    slots: &'s Slots<W>,
    pub(super) slot: usize,
    kept: bool,
}

impl<W> Filling<'_, W> {
    /// The device has taken `work`, which uses the slot.
    pub(super) fn launch(mut self, work: Arc<W>) {
        self.kept = false;
        let mut table = self.slots.lock();
        table.launched += 1;
        let number = table.launched;
        table.flights.push_back(Flight { slot: self.slot, number, work });
        drop(table);
        self.slots.changed.notify_all();
    }
}

impl<W> Drop for Filling<'_, W> {
    fn drop(&mut self) {
        if self.kept {
            self.slots.free(self.slot);
        }
    }
}

/// A slot whose work has ended, and which this thread empties. Dropping it frees the slot.
pub(super) struct Draining<'s, W> {
    slots: &'s Slots<W>,
    pub(super) slot: usize,
    number: u64,
}

impl<W> Drop for Draining<'_, W> {
    fn drop(&mut self) {
        self.slots.lock().draining.retain(|number| *number != self.number);
        self.slots.free(self.slot);
    }
}
