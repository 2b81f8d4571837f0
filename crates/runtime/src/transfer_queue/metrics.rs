//! What the transfer queue counts, where it happens.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bessemer_hal::Timing;

use super::overlap::Overlap;
use super::ticket::Direction;
use crate::histogram::{DEVICE_TIMES, Histogram};
use serde::Serialize;

/// What happened since the queue was made. Averages are 0 where there is nothing to average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TransferMetrics {
    /// Uploads that have arrived, on every path.
    pub total_uploads: u64,
    /// Downloads that have arrived, on every path.
    pub total_downloads: u64,
    /// How long an upload was being copied: on the device's clock, or on the host's where the host stored the bytes.
    pub avg_upload_ms: f64,
    /// The same of downloads.
    pub avg_download_ms: f64,
    /// Time in which a transfer and a compute submission ran together, on the device's clock.
    pub total_overlap_ms: f64,
    /// The share of it in the time in which the device copied.
    pub overlap_ratio: f64,
    /// Times that the host waited: for a slot, for an event, or for the end of a transfer.
    pub sync_wait_count: u64,
    /// Length of such a wait.
    pub avg_sync_wait_ms: f64,
    /// Slots in use at this moment.
    pub queue_depth: u64,
    /// Bytes of the uploads.
    pub bytes_up: u64,
    /// Bytes of the downloads.
    pub bytes_down: u64,
    /// Of the uploads, those that the host stored into memory that it shares with the device.
    pub zero_copy_uploads: u64,
    /// Of the downloads, those that the host read from memory that it shares with the device.
    pub zero_copy_downloads: u64,
    /// Of the uploads, those that the host stored through the mapping of a discrete device.
    pub direct_uploads: u64,
    /// Transfers that went over the compute queue, each with its wait, because the queue was off or in a second attempt.
    pub plain_transfers: u64,
    /// Batches that were uploaded ahead of need.
    pub prefetches: u64,
    /// Times that a batch was asked for and had been prefetched.
    pub prefetch_hits: u64,
    /// Times that a batch was asked for and had not been, or had failed.
    pub prefetch_misses: u64,
    /// Waits that ran out of time.
    pub timeouts: u64,
    /// Uploads that arrived damaged; each attempt counts.
    pub checksum_failures: u64,
    /// Operations that were copied for longer than 10 ms.
    pub slow_operations: u64,
    /// Transfers that failed after they were begun.
    pub failed_transfers: u64,
}

/// Which way a transfer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The host stores or loads: one memory.
    ZeroCopy,
    /// The host stores across the bus.
    Direct,
    /// Staging, and the device's queue for copies.
    Staged,
    /// Staging, and the compute queue.
    Plain,
}

/// Sums behind [`TransferMetrics`], and the times one by one.
#[derive(Debug)]
pub(super) struct Meter {
    sums: Mutex<Sums>,
    pub(super) uploads: Histogram,
    pub(super) downloads: Histogram,
}

impl Default for Meter {
    fn default() -> Self {
        let [uploads, downloads] = [(); 2].map(|()| Histogram::new(&DEVICE_TIMES));
        Self { sums: Mutex::default(), uploads, downloads }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) counts: TransferMetrics,
    upload_ns: u64,
    download_ns: u64,
    waited: Duration,
    overlap: Overlap,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes counts.
    pub(super) fn count(&self, change: impl FnOnce(&mut TransferMetrics)) {
        change(&mut self.lock().counts);
    }

    /// An operation has arrived. `nanos` is `None` where times are not tracked.
    pub(super) fn arrived(&self, direction: Direction, path: Path, bytes: u64, nanos: Option<u64>) {
        if let Some(nanos) = nanos {
            match direction {
                Direction::Up => self.uploads.observe(nanos),
                Direction::Down => self.downloads.observe(nanos),
            }
        }
        let mut sums = self.lock();
        let (counts, nanos) = (&mut sums.counts, nanos.unwrap_or(0));
        match direction {
            Direction::Up => {
                counts.total_uploads += 1;
                counts.bytes_up += bytes;
            }
            Direction::Down => {
                counts.total_downloads += 1;
                counts.bytes_down += bytes;
            }
        }
        match (path, direction) {
            (Path::ZeroCopy, Direction::Up) => counts.zero_copy_uploads += 1,
            (Path::ZeroCopy, Direction::Down) => counts.zero_copy_downloads += 1,
            (Path::Direct, _) => counts.direct_uploads += 1,
            (Path::Plain, _) => counts.plain_transfers += 1,
            (Path::Staged, _) => {}
        }
        match direction {
            Direction::Up => sums.upload_ns = sums.upload_ns.saturating_add(nanos),
            Direction::Down => sums.download_ns = sums.download_ns.saturating_add(nanos),
        }
    }

    /// The host has waited.
    pub(super) fn waited(&self, time: Duration) {
        let mut sums = self.lock();
        sums.counts.sync_wait_count += 1;
        sums.waited = sums.waited.saturating_add(time);
    }

    pub(super) fn transfer_ran(&self, timing: Timing) {
        self.lock().overlap.add_transfer(timing);
    }

    pub(super) fn compute_ran(&self, timing: Timing) {
        self.lock().overlap.add_compute(timing);
    }

    /// Everything so far, with the depth of this moment.
    pub(super) fn metrics(&self, queue_depth: u64) -> TransferMetrics {
        let sums = self.lock();
        let counts = sums.counts;
        let ms = |nanos: f64| nanos / 1e6;
        let mean = |sum: f64, count: u64| if count == 0 { 0.0 } else { sum / count as f64 };
        let (together, moved) = (sums.overlap.together_ns(), sums.overlap.transfer_ns());
        TransferMetrics {
            avg_upload_ms: ms(mean(sums.upload_ns as f64, counts.total_uploads)),
            avg_download_ms: ms(mean(sums.download_ns as f64, counts.total_downloads)),
            total_overlap_ms: ms(together as f64),
            overlap_ratio: mean(together as f64, moved),
            avg_sync_wait_ms: mean(sums.waited.as_secs_f64() * 1e3, counts.sync_wait_count),
            queue_depth,
            ..counts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_average() {
        assert_eq!(Meter::default().metrics(0), TransferMetrics::default());
    }

    #[test]
    fn averages_are_sums_over_counts() {
        let meter = Meter::default();
        meter.arrived(Direction::Up, Path::Staged, 10, Some(1_000_000));
        meter.arrived(Direction::Up, Path::ZeroCopy, 20, Some(3_000_000));
        meter.arrived(Direction::Up, Path::Direct, 30, None);
        meter.arrived(Direction::Up, Path::Plain, 40, Some(0));
        meter.arrived(Direction::Down, Path::Plain, 5, Some(7_000_000));
        meter.arrived(Direction::Down, Path::ZeroCopy, 6, Some(1_000_000));
        meter.waited(Duration::from_millis(2));
        meter.waited(Duration::from_millis(4));
        meter.transfer_ran(Timing { start_ns: 0, end_ns: 4_000_000 });
        meter.compute_ran(Timing { start_ns: 1_000_000, end_ns: 9_000_000 });
        meter.count(|counts| counts.timeouts += 1);
        let expected = TransferMetrics {
            total_uploads: 4,
            total_downloads: 2,
            avg_upload_ms: 1.0,
            avg_download_ms: 4.0,
            total_overlap_ms: 3.0,
            overlap_ratio: 0.75,
            sync_wait_count: 2,
            avg_sync_wait_ms: 3.0,
            queue_depth: 5,
            bytes_up: 100,
            bytes_down: 11,
            zero_copy_uploads: 1,
            zero_copy_downloads: 1,
            direct_uploads: 1,
            plain_transfers: 2,
            timeouts: 1,
            ..TransferMetrics::default()
        };
        assert_eq!(meter.metrics(5), expected);
        let (up, down) = (meter.uploads.snapshot(), meter.downloads.snapshot());
        assert_eq!((up.count, down.count), (3, 2), "one whose time is not tracked is in no bucket");
        assert!((up.sum - 0.004).abs() < 1e-12 && (down.sum - 0.008).abs() < 1e-12);
    }
}
