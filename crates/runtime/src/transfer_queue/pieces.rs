//! Pieces of a transfer: from the host to a slot, by a copy of the device, and back.
//!
//! A piece is one submission. The pieces of a transfer are *chained*: each waits on the device for the one before, so that the
//! event of the last stands for all of them, also for their failures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_hal::{DeviceError, Event, QueueKind, Slice, Submission, Submit};

use super::TransferQueue;
use super::error::{TransferError, TransferResult};
use super::metrics::Path;
use super::slots::{Filling, Flight, Look, Next};
use super::ticket::{Direction, Operation};

/// Operations that are copied for longer are slow.
const SLOW: Duration = Duration::from_millis(10);
/// As good as for ever.
const YEAR: Duration = Duration::from_secs(31_536_000);
/// What another thread has at least to drain a flight that has ended: a read of one slot.
const DRAIN: Duration = Duration::from_secs(1);

/// A piece that the device has.
#[derive(Debug)]
pub(super) struct Piece {
    operation: Arc<Operation>,
    index: usize,
    queue: QueueKind,
    /// In the buffer of the caller.
    remote: Slice,
    staged: Slice,
    check: Option<Check>,
    submission: Submission,
}

/// How a piece is verified: behind its copy the device copies the bytes of the caller's buffer to the slot, once more.
#[derive(Debug)]
struct Check {
    again: Slice,
    /// CRC-32 of what goes up.
    sent: Option<u32>,
}

/// A transfer through staging that is to be made.
#[derive(Debug)]
pub(super) struct Route<'a> {
    pub(super) operation: &'a Arc<Operation>,
    pub(super) remote: &'a Slice,
    pub(super) queue: QueueKind,
    /// What the first piece waits for.
    pub(super) wait: Vec<(Event, u64)>,
}

impl TransferQueue {
    /// Bytes of a piece. With verification a slot holds them twice.
    pub(super) fn piece_bytes(&self) -> u64 {
        let slot = self.config.slot_bytes();
        if self.config.verify_checksums { (slot / 512 * 256).max(1) } else { slot }
    }

    /// Submits every piece; the result is reached when all have been copied. `data` is what goes up.
    pub(super) fn send(&self, route: Route<'_>, data: Option<&[u8]>) -> TransferResult<(Event, u64)> {
        let Route { operation, remote, queue, mut wait } = route;
        let mut reached = self.standing.clone();
        let (mut offset, mut index) = (0, 0);
        while offset < remote.size() {
            let bytes = self.piece_bytes().min(remote.size() - offset);
            let filling = self.slot()?;
            let staged = self.staging.slice(filling.slot, 0, bytes)?;
            let mut sent = None;
            if let Some(data) = data {
                let range = offset as usize..(offset + bytes) as usize;
                let piece =
                    data.get(range).ok_or_else(|| DeviceError::Usage("an upload is too short".into()))?;
                self.device.write(&staged, piece)?;
                sent = self.config.verify_checksums.then(|| crc32fast::hash(piece));
            }
            let check = match self.config.verify_checksums {
                true => {
                    let again = self.staging.slice(filling.slot, self.piece_bytes(), bytes)?;
                    Some(Check { again, sent })
                }
                false => None,
            };
            self.keep_order_by_host(&mut wait)?;
            let remote = remote.slice(offset, bytes)?;
            reached = self.staging.next_value(filling.slot)?;
            let signal = std::slice::from_ref(&reached);
            let commands = self.record(operation.direction, &staged, &remote, check.as_ref())?;
            let submit = Submit { wait: &wait, signal, ..Submit::new(&commands) };
            let submission = self.device.submit(queue, submit)?;
            let operation = operation.clone();
            wait = vec![reached.clone()];
            let piece = Piece { operation, index, queue, remote, staged, check, submission };
            filling.launch(Arc::new(piece));
            offset += bytes;
            index += 1;
        }
        Ok(reached)
    }

    fn record(
        &self,
        direction: Direction,
        staged: &Slice,
        remote: &Slice,
        check: Option<&Check>,
    ) -> TransferResult<bessemer_hal::CommandBuffer> {
        let (label, from, to) = match direction {
            Direction::Up => ("transfer_up", staged, remote),
            Direction::Down => ("transfer_down", remote, staged),
        };
        let mut encoder = self.device.create_encoder(label)?;
        encoder.copy(from, to)?;
        if let Some(check) = check {
            encoder.barrier();
            encoder.copy(remote, &check.again)?;
        }
        Ok(encoder.finish()?)
    }

    /// Without shared events, waits here for what the device would wait for.
    pub(super) fn keep_order_by_host(&self, wait: &mut Vec<(Event, u64)>) -> TransferResult<()> {
        if self.config.use_shared_events { Ok(()) } else { self.await_events(wait) }
    }

    /// Waits on the host until events are reached, and takes them off the list.
    pub(super) fn await_events(&self, wait: &mut Vec<(Event, u64)>) -> TransferResult<()> {
        wait.drain(..).try_for_each(|(event, value)| self.await_event(&event, value))
    }

    fn await_event(&self, event: &Event, value: u64) -> TransferResult<()> {
        if is_reached(event, value)? {
            return Ok(());
        }
        let begin = Instant::now();
        let outcome = event.wait(value, self.timeout());
        self.meter.waited(begin.elapsed());
        if matches!(outcome, Err(DeviceError::Timeout { .. })) {
            self.meter.count(|counts| counts.timeouts += 1);
        }
        Ok(outcome?)
    }

    /// Waits on the host until no transfer of these bytes is under way on another queue than `queue`, however those end.
    /// Not on the device: a transfer that never ends would stop the queue, and one that fails would fail this one.
    pub(super) fn await_end_elsewhere(&self, slice: &Slice, queue: QueueKind) -> TransferResult<()> {
        let begin = Instant::now();
        let deadline = deadline(self.timeout());
        self.settle_ended();
        let mut flights = self.slots.flights();
        flights.retain(|flight| flight.work.queue != queue && flight.work.remote.overlaps(slice));
        if flights.is_empty() {
            return Ok(());
        }
        let ended = flights.iter().all(|flight| self.settle_by(flight, deadline));
        self.meter.waited(begin.elapsed());
        if ended {
            return Ok(());
        }
        let what = "the transfers of the same bytes that are under way on the other queue";
        Err(self.timed_out(what.into(), self.timeout()))
    }

    /// Whether a transfer under way uses bytes of `slice`.
    pub(super) fn uses(&self, slice: &Slice) -> bool {
        self.settle_ended();
        self.slots.flights().iter().any(|flight| flight.work.remote.overlaps(slice))
    }

    /// A slot of its own for the caller; waits for the oldest flight where none is free.
    fn slot(&self) -> TransferResult<Filling<'_, Piece>> {
        let begin = Instant::now();
        let deadline = deadline(self.timeout());
        let mut waited = false;
        let found = loop {
            match self.slots.next(deadline) {
                Next::Slot(filling) => break Some(filling),
                Next::TimedOut => break None,
                Next::Full(oldest) => {
                    // One on the other queue may have ended before the oldest.
                    if self.settle_ended() {
                        continue;
                    }
                    waited = true;
                    if !self.settle_by(&oldest, deadline) {
                        break None;
                    }
                }
            }
        };
        if waited || found.is_none() {
            self.meter.waited(begin.elapsed());
        }
        found.ok_or_else(|| {
            let slots = self.config.max_pending_ops;
            let what = format!("a free slot of the transfer ring ({slots} operations are under way)");
            self.timed_out(what, self.timeout())
        })
    }

    /// Waits until an operation has ended.
    pub(super) fn await_operation(&self, operation: &Operation, timeout: Duration) -> TransferResult<()> {
        let begin = Instant::now();
        let deadline = deadline(timeout);
        let mut waited = false;
        let in_time = loop {
            let own = |piece: &Piece| piece.operation.id == operation.id;
            match self.slots.look(deadline, own, || operation.has_ended()) {
                Look::Done => break true,
                Look::TimedOut => break false,
                Look::Flight(flight) => {
                    waited |= flight.work.submission.poll().is_none();
                    if !self.settle_by(&flight, deadline) {
                        break false;
                    }
                }
            }
        };
        if waited {
            self.meter.waited(begin.elapsed());
        }
        match operation.outcome().filter(|_| in_time) {
            Some(outcome) => outcome,
            None => {
                let what = format!("transfer {} of {} bytes", operation.id, operation.bytes);
                Err(self.timed_out(what, timeout))
            }
        }
    }

    /// A wait has run out of time.
    pub(super) fn timed_out(&self, what: String, after: Duration) -> TransferError {
        self.meter.count(|counts| counts.timeouts += 1);
        DeviceError::Timeout { what, millis: after.as_millis() as u64 }.into()
    }

    /// Settles every flight that has ended; whether there was one.
    pub(super) fn settle_ended(&self) -> bool {
        let flights = self.slots.flights();
        flights.iter().filter(|flight| flight.work.submission.poll().is_some()).fold(false, |_, flight| {
            self.settle(flight);
            true
        })
    }

    /// Waits for a flight and settles it; false when it has not ended at the deadline.
    pub(super) fn settle_by(&self, flight: &Flight<Piece>, deadline: Instant) -> bool {
        let submission = &flight.work.submission;
        let left = deadline.saturating_duration_since(Instant::now());
        // How it ended is asked below: an error here may be its own or that of the wait.
        let _ = submission.wait(left);
        if submission.poll().is_none() {
            return false;
        }
        self.settle(flight);
        self.slots.drained(flight, deadline.max(self::deadline(DRAIN)))
    }

    /// Takes in what a flight that has ended brought, and frees its slot; nothing, when another thread does.
    fn settle(&self, flight: &Flight<Piece>) {
        let Some(outcome) = flight.work.submission.poll() else { return };
        let Some(draining) = self.slots.claim(flight) else { return };
        let piece = &*flight.work;
        let operation = &*piece.operation;
        let path = if piece.queue == QueueKind::Compute { Path::Plain } else { Path::Staged };
        let arrived = outcome.map_err(TransferError::from).and_then(|timing| {
            if self.config.track_timing {
                self.meter.transfer_ran(timing);
            }
            let bytes = self.take_in(piece)?;
            Ok((timing.end_ns.saturating_sub(timing.start_ns), bytes))
        });
        match arrived {
            Ok((nanos, bytes)) => {
                if let Some(nanos) = operation.arrive(piece.index, nanos, bytes) {
                    self.note_arrival(operation, path, Duration::from_nanos(nanos));
                }
            }
            Err(error) => {
                self.staging.spoil(draining.slot);
                self.give_up(operation, &error);
            }
        }
        // Only now may the slot be used again, and whoever waits look for the outcome.
        drop(draining);
    }

    /// The bytes of a download, of an upload nothing; compared with the second copy where there is one.
    fn take_in(&self, piece: &Piece) -> TransferResult<Vec<u8>> {
        let operation = &piece.operation;
        let fetch = |from: &Slice| {
            let mut bytes = vec![0; from.size() as usize];
            self.device.read(from, &mut bytes).map(|()| bytes)
        };
        let arrived = match operation.direction {
            Direction::Up => Vec::new(),
            Direction::Down if operation.is_abandoned() => return Ok(Vec::new()),
            Direction::Down => fetch(&piece.staged)?,
        };
        if let Some(check) = &piece.check {
            let found = crc32fast::hash(&fetch(&check.again)?);
            let expected = check.sent.unwrap_or_else(|| crc32fast::hash(&arrived));
            verify(operation.direction, &piece.remote, expected, found)?;
        }
        Ok(arrived)
    }

    /// An operation is complete.
    pub(super) fn note_arrival(&self, operation: &Operation, path: Path, took: Duration) {
        let &Operation { id, direction, bytes, .. } = operation;
        let nanos = self.config.track_timing.then_some(took.as_nanos() as u64);
        self.meter.arrived(direction, path, bytes, nanos);
        if self.config.log_slow_operations && took > SLOW {
            self.meter.count(|counts| counts.slow_operations += 1);
            tracing::info!(id, ?direction, ?path, bytes, ?took, "slow transfer");
        } else if self.config.verbose_logging {
            tracing::debug!(id, ?direction, ?path, bytes, ?took, "transfer");
        }
    }

    /// An operation has failed.
    pub(super) fn give_up(&self, operation: &Operation, error: &TransferError) {
        if operation.fail(error) {
            self.meter.count(|counts| {
                counts.failed_transfers += 1;
                if matches!(error, TransferError::Checksum { .. }) {
                    counts.checksum_failures += 1;
                }
            });
        }
    }
}

/// When a wait that begins now ends; a wait that is longer than the clock goes takes a year.
pub(super) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).or_else(|| now.checked_add(YEAR)).unwrap_or(now)
}

/// Compares two checksums of the bytes of `place`.
pub(super) fn verify(direction: Direction, place: &Slice, expected: u32, found: u32) -> TransferResult<()> {
    if found == expected {
        return Ok(());
    }
    Err(TransferError::Checksum {
        direction,
        buffer: place.buffer().label().to_owned(),
        offset: place.offset(),
        bytes: place.size(),
        expected,
        found,
    })
}

/// Whether an event has come to a value.
pub(super) fn is_reached(event: &Event, value: u64) -> TransferResult<bool> {
    match event.wait(value, Duration::ZERO) {
        Ok(()) => Ok(true),
        Err(DeviceError::Timeout { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use bessemer_hal::cpu::{CpuDevice, CpuOptions};
    use bessemer_hal::fault::{Fault, FaultDevice};
    use bessemer_hal::noop::NoopDevice;
    use bessemer_hal::{BufferDesc, Device};

    use super::super::TransferQueueConfig;
    use super::*;
    use crate::logged::logged;

    #[test]
    fn a_transfer_that_is_made_again_is_told() {
        let inner = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() });
        let fault = FaultDevice::with_own_memory(inner);
        let config = TransferQueueConfig {
            verify_checksums: true,
            // On a busy machine any of them may be.
            log_slow_operations: false,
            ..TransferQueueConfig::default()
        };
        let queue = TransferQueue::new(fault.clone(), config).unwrap();
        let slice = fault.create_buffer(&BufferDesc::own("ids", 64)).unwrap().whole();
        assert!(logged(|| drop(queue.upload(&slice, &[3; 64], None).unwrap())).is_empty());
        fault.next(Fault::TransferCorruption);
        let up = logged(|| drop(queue.upload(&slice, &[4; 64], None).unwrap()));
        fault.next(Fault::TransferCorruption);
        let down = logged(|| drop(queue.download(&slice, None).unwrap()));
        for (lines, what) in [(up, "upload of 64 bytes"), (down, "download of 64 bytes")] {
            assert!(lines.len() == 1 && lines[0].contains(what), "{lines:?}");
            assert!(lines[0].contains("'ids'") && lines[0].contains("once more on the compute queue"));
        }
    }

    #[test]
    fn longer_than_ten_milliseconds_is_slow_and_told_where_that_is_asked_for() {
        for asked in [true, false] {
            let config = TransferQueueConfig { log_slow_operations: asked, ..TransferQueueConfig::default() };
            let queue = TransferQueue::new(NoopDevice::new(None), config).unwrap();
            for (nanos, slow) in [(10_000_000, false), (10_000_001, true)] {
                let operation = Operation::new(queue.id, Direction::Up, 77, 1);
                let took = Duration::from_nanos(nanos);
                let lines = logged(|| queue.note_arrival(&operation, Path::Staged, took));
                let told = lines.iter().filter(|line| line.contains("slow transfer") && line.contains("77"));
                assert_eq!(
                    (told.count(), lines.len()),
                    (usize::from(slow && asked), usize::from(slow && asked))
                );
                assert_eq!(queue.get_metrics().slow_operations, u64::from(slow && asked));
            }
            assert_eq!(queue.get_metrics().total_uploads, 2);
        }
    }
}
