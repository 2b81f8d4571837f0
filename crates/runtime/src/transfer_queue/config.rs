//! What the transfer queue is set up with: `metal_optimizations.blit_queue` of the configuration.

use crate::SettingError;

/// MiB of the staging ring at most.
const MAX_STAGING_MB: u64 = 4096;

/// How a [`super::TransferQueue`] works. The names are those of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // The names are a contract with users of the configuration file.
pub struct TransferQueueConfig {
    /// [`super::TransferQueue::prefetch_next_batch`] uploads; otherwise it does nothing and says so.
    pub prefetch_enabled: bool,
    /// An upload returns when it is submitted; otherwise when its bytes have arrived.
    pub async_upload: bool,
    /// A download returns when it is submitted; otherwise when its bytes are there.
    pub async_download: bool,
    /// Longest wait for a free slot of the ring, and of every operation that is waited for; 100 to 30 000 ms.
    pub timeout_ms: u64,
    /// Slots of the ring: copies under way at most, 1 to 100. A further one waits for the oldest.
    pub max_pending_ops: usize,
    /// Order between queues is kept by events on the device; otherwise the host waits in between.
    pub use_shared_events: bool,
    /// MiB of the staging ring, 1 to 4096, shared by its slots. A longer transfer is cut into pieces of a slot.
    pub staging_buffer_size_mb: u64,
    /// Times of copies are added up, and their overlap with compute.
    pub track_timing: bool,
    /// Operations that took longer than 10 ms are logged as warnings and counted.
    pub log_slow_operations: bool,
    /// Every operation is logged at level debug.
    pub verbose_logging: bool,
    /// Every upload is read back on the device behind its copy and compared with its source, and every download is copied
    /// twice and the copies compared, before it counts as done. Transfers then return when that has happened, because a
    /// device that waits for an event knows no checksum.
    pub verify_checksums: bool,
    /// Bytes up to which an upload is a store through the mapping where the device has one ([`bessemer_hal::Limits::mapped`])
    /// without unified memory. 4 KiB take 0.7 µs so, and 12 to 30 µs through the queue, on an H200. 0: never.
    pub direct_write_bytes: u64,
}

impl Default for TransferQueueConfig {
    fn default() -> Self {
        Self {
            prefetch_enabled: true,
            async_upload: true,
            async_download: true,
            timeout_ms: 5000,
            max_pending_ops: 8,
            use_shared_events: true,
            staging_buffer_size_mb: 64,
            track_timing: true,
            log_slow_operations: true,
            verbose_logging: false,
            verify_checksums: false,
            direct_write_bytes: 64 << 10,
        }
    }
}

impl TransferQueueConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first field that is out of range, with its rule, its value, and a cure.
    pub fn validate(&self) -> Result<(), SettingError> {
        SettingError::within(
            "blit_queue.timeout_ms",
            self.timeout_ms,
            100..=30_000,
            Some("5000 suits most machines; a longer wait hides a device that hangs"),
        )?;
        SettingError::within(
            "blit_queue.max_pending_ops",
            self.max_pending_ops as u64,
            1..=100,
            Some("set 8; to have no transfers under way, switch the queue off instead"),
        )?;
        SettingError::within(
            "blit_queue.staging_buffer_size_mb",
            self.staging_buffer_size_mb,
            1..=MAX_STAGING_MB,
            Some("set 64; longer transfers are cut into pieces"),
        )
    }

    /// Bytes of a slot: a share of the ring, cut down to where a copy may begin on every device.
    pub(super) fn slot_bytes(&self) -> u64 {
        let ring = self.staging_buffer_size_mb << 20;
        ring / self.max_pending_ops.max(1) as u64 / SLOT_ALIGNMENT * SLOT_ALIGNMENT
    }
}

/// Slots begin at multiples of so many bytes.
const SLOT_ALIGNMENT: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_are_the_documented_ones() {
        let config = TransferQueueConfig::default();
        config.validate().unwrap();
        assert_eq!((config.timeout_ms, config.max_pending_ops, config.staging_buffer_size_mb), (5000, 8, 64));
        assert_eq!(config.direct_write_bytes, 65_536);
        assert!(config.prefetch_enabled && config.async_upload && config.async_download);
        assert!(config.use_shared_events && config.track_timing && config.log_slow_operations);
        assert!(!config.verbose_logging && !config.verify_checksums);
        assert_eq!(config.slot_bytes(), 8 << 20);
    }

    #[test]
    fn the_ends_of_each_range_are_inside_and_their_neighbours_are_not() {
        let with = |change: fn(&mut TransferQueueConfig, u64), value| {
            let mut config = TransferQueueConfig::default();
            change(&mut config, value);
            config.validate()
        };
        type Change = fn(&mut TransferQueueConfig, u64);
        let fields: [(&str, Change, u64, u64); 3] = [
            ("timeout_ms", |c, v| c.timeout_ms = v, 100, 30_000),
            ("max_pending_ops", |c, v| c.max_pending_ops = v as usize, 1, 100),
            ("staging_buffer_size_mb", |c, v| c.staging_buffer_size_mb = v, 1, 4096),
        ];
        for (name, change, low, high) in fields {
            with(change, low).unwrap();
            with(change, high).unwrap();
            for bad in [low - 1, high + 1] {
                let error = with(change, bad).unwrap_err();
                let text = error.to_string();
                let begin = format!("blit_queue.{name} is {bad}, but it must be {low} to {high}: ");
                assert!(text.starts_with(&begin) && text.len() > begin.len(), "{text}");
            }
        }
    }

    #[test]
    fn slots_are_aligned_and_fit_the_ring() {
        for (mb, ops) in [(1, 1), (1, 7), (1, 100), (64, 3), (4096, 100)] {
            let config = TransferQueueConfig {
                staging_buffer_size_mb: mb,
                max_pending_ops: ops,
                ..TransferQueueConfig::default()
            };
            let slot = config.slot_bytes();
            assert!(slot >= 10_240 && slot.is_multiple_of(256), "{slot}");
            assert!(slot * ops as u64 <= mb << 20);
            assert!((slot + 256) * ops as u64 > mb << 20, "no more is cut off than alignment asks");
        }
    }
}
