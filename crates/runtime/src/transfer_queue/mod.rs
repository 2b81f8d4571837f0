//! The transfer queue (`blit_queue`): bytes between host and device, beside the compute queue.
//!
//! The upload of the next step and the download of the last run while this step computes, ordered by events on the device and
//! not by waits of the host. `docs/blit-queue.md` tells when that helps.
//!
//! Design choices:
//!
//! - *Four paths*, chosen for each transfer: a store where host and device share one memory; a store through the mapping for
//!   few bytes where a discrete device has one; staging and the device's queue for copies; and, switched off, staging
//!   and the compute queue, each with its wait.
//! - *Bounded*: the ring has [`TransferQueueConfig::max_pending_ops`] slots. A further transfer waits for the oldest, with a
//!   time limit, and without a lock. Longer transfers are cut into pieces of a slot.
//! - *No thread of its own*. Whoever waits, asks or needs a slot takes in what has ended. So nothing runs while nothing is
//!   asked, and there is nothing to shut down; a download's bytes stay in their slot until somebody calls.
//! - *A slot returns when the device says so*, whatever became of those who waited. A transfer that never ends costs
//!   its slot and a time-out to whoever waits for it, and nothing else.
//! - *Verification is not asynchronous*: a device that waits for an event knows no checksum, and the bytes of a download may be
//!   overwritten behind its event. So a verified transfer returns when it has been compared, and can be made again.
//!
//! Staging lies in memory of the host: its part of a transfer is a copy in its own memory, and the device's goes across the bus.

mod config;
mod error;
mod metrics;
mod overlap;
mod pieces;
mod prefetch;
mod slots;
mod staging;
mod sync;
mod ticket;

pub use config::TransferQueueConfig;
pub use error::{TransferError, TransferResult};
pub use metrics::TransferMetrics;
pub use prefetch::Prefetch;
pub use ticket::{Direction, Download, Ticket};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bessemer_hal::{Device, DeviceError, Event, QueueKind, Slice, Timing};

use metrics::{Meter, Path};
use pieces::{Piece, Route, deadline, is_reached, verify};
use prefetch::Prefetched;
use slots::Slots;
use staging::Staging;
use ticket::Operation;

use crate::SettingError;
use crate::histogram::HistogramSnapshot;

/// Uploads and downloads of a device. Shared between threads by reference.
#[derive(Debug)]
pub struct TransferQueue {
    id: u64,
    device: Arc<dyn Device>,
    config: TransferQueueConfig,
    enabled: AtomicBool,
    slots: Slots<Piece>,
    staging: Staging,
    meter: Meter,
    prefetched: Prefetched,
    /// What transfers that are over at once have reached.
    standing: (Event, u64),
}

/// Why a queue cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferQueueError {
    /// A value is out of its range.
    #[error(transparent)]
    Config(#[from] SettingError),
    /// The device refuses memory or events.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl TransferQueue {
    /// A queue on `device`, switched on. The ring is reserved now, or where memory is unified when it is first needed.
    ///
    /// # Errors
    /// [`TransferQueueError::Config`], or [`TransferQueueError::Device`] when the ring has no memory.
    pub fn new(device: Arc<dyn Device>, config: TransferQueueConfig) -> Result<Self, TransferQueueError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        config.validate()?;
        let now = !device.info().limits.unified_memory;
        let staging = Staging::new(&device, config.max_pending_ops, config.slot_bytes(), now)?;
        let standing = (device.create_event(0)?, 0);
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            enabled: AtomicBool::new(true),
            slots: Slots::new(config.max_pending_ops),
            staging,
            meter: Meter::default(),
            prefetched: Prefetched::default(),
            standing,
            device,
            config,
        })
    }

    /// What it was made with.
    pub fn config(&self) -> &TransferQueueConfig {
        &self.config
    }

    /// Whether transfers go beside the compute queue.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Switches it on or off from the next transfer on. What is under way goes on, and a transfer of the same bytes on the
    /// other queue waits for its end.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
    }

    /// Copies `data` to `to`, once `after` is reached. `data` may change when this returns. Transfers of the same
    /// bytes happen in the order in which they were asked for; compute is ordered by `after` and by [`Ticket::event`].
    ///
    /// Waits for a free slot while the ring is full, and so while more than the ring holds is still to be copied.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] when no slot became free, or when it waits for the end and that did not come; the bytes of
    /// `to` are then undefined until [`TransferQueue::wait_for_all`] has succeeded. [`DeviceError::Usage`] when the lengths
    /// differ, or when the host stores directly and a pending submission uses the bytes. [`TransferError::Checksum`] when
    /// verification failed twice. Otherwise the failure of the device or of what should have reached `after`.
    pub fn upload(&self, to: &Slice, data: &[u8], after: Option<(Event, u64)>) -> TransferResult<Ticket> {
        if to.size() != data.len() as u64 {
            let (bytes, given) = (to.size(), data.len());
            let label = to.buffer().label();
            let rule = format!("{given} bytes for {bytes} of buffer '{label}': lengths must be equal");
            return Err(DeviceError::Usage(rule).into());
        }
        match self.upload_once(to, data, after) {
            Err(error @ TransferError::Checksum { .. }) => {
                again_in_plain(&error);
                self.upload_staged(to, data, QueueKind::Compute, Vec::new())
            }
            outcome => outcome,
        }
    }

    fn upload_once(&self, to: &Slice, data: &[u8], after: Option<(Event, u64)>) -> TransferResult<Ticket> {
        let mut after: Vec<_> = after.into_iter().collect();
        if !self.is_enabled() {
            return self.upload_staged(to, data, QueueKind::Compute, after);
        }
        self.keep_order_by_host(&mut after)?;
        let limits = &self.device.info().limits;
        let path = if limits.unified_memory {
            Path::ZeroCopy
        } else if limits.mapped && to.size() <= self.config.direct_write_bytes {
            Path::Direct
        } else {
            Path::Staged
        };
        if path == Path::Staged || !self.is_free(to, &after)? {
            return self.upload_staged(to, data, QueueKind::Transfer, after);
        }
        self.upload_directly(to, data, path)
    }

    /// Whether the host may use the bytes now, as far as this queue knows.
    fn is_free(&self, slice: &Slice, after: &[(Event, u64)]) -> TransferResult<bool> {
        for (event, value) in after {
            if !is_reached(event, *value)? {
                return Ok(false);
            }
        }
        Ok(!self.uses(slice))
    }

    fn upload_directly(&self, to: &Slice, data: &[u8], path: Path) -> TransferResult<Ticket> {
        let operation = Operation::new(self.id, Direction::Up, to.size(), 1);
        let begin = Instant::now();
        self.device.write(to, data)?;
        let took = begin.elapsed();
        if self.config.verify_checksums {
            let mut arrived = vec![0; data.len()];
            self.device.read(to, &mut arrived)?;
            verify(Direction::Up, to, crc32fast::hash(data), crc32fast::hash(&arrived))
                .inspect_err(|error| self.give_up(&operation, error))?;
        }
        operation.arrive(0, took.as_nanos() as u64, Vec::new());
        self.note_arrival(&operation, path, took);
        Ok(Ticket { operation, reached: self.standing.clone() })
    }

    fn upload_staged(
        &self,
        to: &Slice,
        data: &[u8],
        queue: QueueKind,
        after: Vec<(Event, u64)>,
    ) -> TransferResult<Ticket> {
        let ticket = self.begin(Direction::Up, to, queue, after, Some(data))?;
        let plain = queue == QueueKind::Compute;
        // Without shared events the caller keeps order by when this returns.
        let at_once = self.config.async_upload && self.config.use_shared_events;
        if plain || !at_once || self.config.verify_checksums {
            self.await_operation(&ticket.operation, self.timeout())?;
        }
        Ok(ticket)
    }

    /// Copies the bytes of `from` to the host, once `after` is reached. Take them with [`TransferQueue::wait_for_bytes`].
    /// Later writes of `from` are ordered by [`Ticket::event`].
    ///
    /// Waits for a free slot while the ring is full, and so while more than the ring holds is still to be copied.
    ///
    /// # Errors
    /// As [`TransferQueue::upload`].
    pub fn download(&self, from: &Slice, after: Option<(Event, u64)>) -> TransferResult<Download> {
        match self.download_once(from, after) {
            Err(error @ TransferError::Checksum { .. }) => {
                again_in_plain(&error);
                self.download_staged(from, QueueKind::Compute, Vec::new())
            }
            outcome => outcome,
        }
    }

    fn download_once(&self, from: &Slice, after: Option<(Event, u64)>) -> TransferResult<Download> {
        let mut after: Vec<_> = after.into_iter().collect();
        if !self.is_enabled() {
            return self.download_staged(from, QueueKind::Compute, after);
        }
        self.keep_order_by_host(&mut after)?;
        if !self.device.info().limits.unified_memory || !self.is_free(from, &after)? {
            return self.download_staged(from, QueueKind::Transfer, after);
        }
        let operation = Operation::new(self.id, Direction::Down, from.size(), 1);
        let begin = Instant::now();
        let mut bytes = vec![0; from.size() as usize];
        self.device.read(from, &mut bytes)?;
        let took = begin.elapsed();
        if self.config.verify_checksums {
            let mut again = vec![0; bytes.len()];
            self.device.read(from, &mut again)?;
            verify(Direction::Down, from, crc32fast::hash(&bytes), crc32fast::hash(&again))
                .inspect_err(|error| self.give_up(&operation, error))?;
        }
        operation.arrive(0, took.as_nanos() as u64, bytes);
        self.note_arrival(&operation, Path::ZeroCopy, took);
        Ok(Download { ticket: Ticket { operation, reached: self.standing.clone() } })
    }

    fn download_staged(
        &self,
        from: &Slice,
        queue: QueueKind,
        after: Vec<(Event, u64)>,
    ) -> TransferResult<Download> {
        let download = Download { ticket: self.begin(Direction::Down, from, queue, after, None)? };
        if queue == QueueKind::Compute || !self.downloads_ahead() {
            self.await_operation(&download.ticket.operation, self.timeout())?;
        }
        Ok(download)
    }

    /// Submits a transfer through staging.
    fn begin(
        &self,
        direction: Direction,
        remote: &Slice,
        queue: QueueKind,
        mut wait: Vec<(Event, u64)>,
        data: Option<&[u8]>,
    ) -> TransferResult<Ticket> {
        let pieces = remote.size().div_ceil(self.piece_bytes()) as usize;
        let operation = Operation::new(self.id, direction, remote.size(), pieces.max(1));
        if queue == QueueKind::Compute {
            // On the host: what is never reached would stop the queue for everybody.
            self.await_events(&mut wait)?;
        }
        self.await_end_elsewhere(remote, queue)?;
        let sent = self.send(Route { operation: &operation, remote, queue, wait }, data);
        let reached = sent.inspect_err(|error| self.give_up(&operation, error))?;
        if pieces == 0 {
            operation.arrive(0, 0, Vec::new());
            let path = if queue == QueueKind::Compute { Path::Plain } else { Path::Staged };
            self.note_arrival(&operation, path, Duration::ZERO);
        }
        Ok(Ticket { operation, reached })
    }

    /// Whether a download returns before its bytes are there.
    pub fn downloads_ahead(&self) -> bool {
        self.is_enabled() && self.config.async_download && !self.config.verify_checksums
    }

    /// Waits until a transfer has ended.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] while it is under way, [`DeviceError::Usage`] for a ticket of another queue, or how it failed.
    pub fn wait_for_completion(&self, ticket: &Ticket, timeout: Duration) -> TransferResult<()> {
        if ticket.operation.queue != self.id {
            return Err(DeviceError::Usage("a ticket is waited for at the queue that gave it".into()).into());
        }
        self.await_operation(&ticket.operation, timeout)
    }

    /// Waits for the bytes of a download. They are given once; after a time-out it may be asked again.
    ///
    /// # Errors
    /// As [`TransferQueue::wait_for_completion`].
    pub fn wait_for_bytes(&self, download: &mut Download, timeout: Duration) -> TransferResult<Vec<u8>> {
        self.wait_for_completion(&download.ticket, timeout)?;
        Ok(download.take())
    }

    /// Waits until everything that is under way now has ended, well or not: how is told by each ticket.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`].
    pub fn wait_for_all(&self, timeout: Duration) -> TransferResult<()> {
        let begin = Instant::now();
        let deadline = deadline(timeout);
        self.settle_ended();
        let flights = self.slots.flights();
        if flights.is_empty() {
            return Ok(());
        }
        let all = flights.iter().all(|flight| self.settle_by(flight, deadline));
        self.meter.waited(begin.elapsed());
        if all {
            return Ok(());
        }
        Err(self.timed_out(format!("the {} transfers under way", flights.len()), timeout))
    }

    /// Whether a transfer has ended, well or not.
    pub fn is_completed(&self, ticket: &Ticket) -> bool {
        if !ticket.operation.has_ended() {
            self.settle_ended();
        }
        ticket.operation.has_ended()
    }

    /// Tells when a compute submission ran, so that the overlap can be computed.
    pub fn note_compute(&self, timing: Timing) {
        if self.config.track_timing {
            self.meter.compute_ran(timing);
        }
    }

    /// What happened so far.
    pub fn get_metrics(&self) -> TransferMetrics {
        self.settle_ended();
        self.meter.metrics(self.slots.taken() as u64)
    }

    /// How long each upload was being copied, as [`TransferMetrics::avg_upload_ms`] has it, in seconds; empty where times
    /// are not tracked.
    pub fn upload_times(&self) -> HistogramSnapshot {
        self.meter.uploads.snapshot()
    }

    /// The same of downloads.
    pub fn download_times(&self) -> HistogramSnapshot {
        self.meter.downloads.snapshot()
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.config.timeout_ms)
    }
}

/// A transfer arrived damaged.
fn again_in_plain(error: &TransferError) {
    tracing::warn!("{error}; once more on the compute queue");
}
