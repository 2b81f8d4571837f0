//! Settings of the pool, and the rules between them.

use super::buddy::Buddy;
use crate::SettingError;

/// Bytes of a megabyte, as the settings count.
pub(super) const MB: u64 = 1 << 20;

/// Settings of a [`super::MemoryPool`]. Sizes are in megabytes of 2²⁰ bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPoolConfig {
    /// Size of each heap: 64 to 2048, at most `max_heap_size_mb`.
    pub heap_size_mb: u64,
    /// Heaps reserved at most: 2 to 16, at least `min_heaps`.
    pub num_heaps: usize,
    /// Buffers that [`super::MemoryPool::warmup`] places: each 1 to 1024. A size counts as the next power of two, and all
    /// of them must fit the heaps at once.
    pub warmup_buffer_sizes_mb: Vec<u64>,
    /// Whether the counters of [`super::MemoryPoolStatistics`] count. Its gauges are always true.
    pub track_statistics: bool,
    /// Whether an exhausted pool says so in the log, at most once in ten seconds.
    pub log_pool_exhaustion: bool,
    /// Safety limit of `heap_size_mb`, and of a heap for requests that no heap of that size can hold: 64 to 2048.
    pub max_heap_size_mb: u64,
    /// Safety limit of `num_heaps`: 2 to 16.
    pub min_heaps: usize,
}

impl Default for MemoryPoolConfig {
    fn default() -> Self {
        Self {
            heap_size_mb: 256,
            num_heaps: 4,
            warmup_buffer_sizes_mb: vec![32, 128],
            track_statistics: true,
            log_pool_exhaustion: true,
            max_heap_size_mb: 2048,
            min_heaps: 2,
        }
    }
}

impl MemoryPoolConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// The first setting that breaks one, with the rule, the value and what to do.
    pub fn validate(&self) -> Result<(), SettingError> {
        let within = |field, value, range| SettingError::within(field, value, range, None);
        within("memory_pool.max_heap_size_mb", self.max_heap_size_mb, 64..=2048)?;
        within("memory_pool.min_heaps", self.min_heaps as u64, 2..=16)?;
        within("memory_pool.heap_size_mb", self.heap_size_mb, 64..=2048)?;
        within("memory_pool.num_heaps", self.num_heaps as u64, 2..=16)?;
        if self.heap_size_mb > self.max_heap_size_mb {
            return Err(SettingError::new(
                "memory_pool.heap_size_mb",
                self.heap_size_mb,
                format!("memory_pool.max_heap_size_mb allows {}", self.max_heap_size_mb),
                "lower the first or raise the second",
            ));
        }
        if self.num_heaps < self.min_heaps {
            return Err(SettingError::new(
                "memory_pool.num_heaps",
                self.num_heaps,
                format!("memory_pool.min_heaps asks for {}", self.min_heaps),
                "raise the first or lower the second",
            ));
        }
        self.validate_warmup()
    }

    fn validate_warmup(&self) -> Result<(), SettingError> {
        let field = "memory_pool.warmup_buffer_sizes_mb";
        for &size in &self.warmup_buffer_sizes_mb {
            SettingError::within(field, size, 1..=1024, None)?;
        }
        let largest = largest_block(self.heap_size_mb);
        if let Some(&size) =
            self.warmup_buffer_sizes_mb.iter().find(|size| size.next_power_of_two() > largest)
        {
            let rule = format!(
                "a heap of memory_pool.heap_size_mb = {} holds buffers of {largest} MB at most, \
                 and sizes count as the next power of two",
                self.heap_size_mb
            );
            let room = size.next_power_of_two();
            let cure = format!("remove it, or set memory_pool.heap_size_mb to {room} or more");
            return Err(SettingError::new(field, size, rule, cure));
        }
        if !self.warmup_fits() {
            let rule = format!(
                "memory_pool.num_heaps = {} heaps of {} MB do not hold all of them at once",
                self.num_heaps, self.heap_size_mb
            );
            let cure = "remove some, or raise memory_pool.num_heaps or memory_pool.heap_size_mb";
            let value = format!("{:?}", self.warmup_buffer_sizes_mb);
            return Err(SettingError::new(field, value, rule, cure));
        }
        Ok(())
    }

    /// Warm-up sizes in bytes, the largest first: in this order powers of two fill heaps without gaps.
    pub(super) fn warmup_bytes(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = self.warmup_buffer_sizes_mb.iter().map(|mb| mb * MB).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }

    fn warmup_fits(&self) -> bool {
        let mut heaps = vec![Buddy::new(self.heap_size_mb * MB, MB); self.num_heaps];
        self.warmup_bytes()
            .iter()
            .all(|size| heaps.iter_mut().any(|heap| heap.allocate(size.next_power_of_two()).is_some()))
    }
}

/// The largest power of two within `size`, which is not zero.
pub(super) fn largest_block(size: u64) -> u64 {
    1 << size.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message for the default settings with a change.
    fn refused(change: impl FnOnce(&mut MemoryPoolConfig)) -> String {
        let mut config = MemoryPoolConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    fn accepted(change: impl FnOnce(&mut MemoryPoolConfig)) {
        let mut config = MemoryPoolConfig::default();
        change(&mut config);
        config.validate().unwrap();
    }

    #[test]
    fn the_default_is_the_documented_one() {
        let config = MemoryPoolConfig::default();
        assert_eq!((config.heap_size_mb, config.num_heaps), (256, 4));
        assert_eq!(config.warmup_buffer_sizes_mb, [32, 128]);
        assert_eq!((config.max_heap_size_mb, config.min_heaps), (2048, 2));
        assert!(config.track_statistics && config.log_pool_exhaustion);
        config.validate().unwrap();
    }

    #[test]
    fn ranges_end_where_documented() {
        accepted(|c| (c.heap_size_mb, c.warmup_buffer_sizes_mb) = (64, vec![1, 32]));
        accepted(|c| c.heap_size_mb = 2048);
        assert!(refused(|c| c.heap_size_mb = 63).contains("heap_size_mb is 63, but it must be 64 to 2048"));
        assert!(refused(|c| c.heap_size_mb = 2049).ends_with("set it to 2048"));
        accepted(|c| c.num_heaps = 2);
        accepted(|c| c.num_heaps = 16);
        assert!(refused(|c| c.num_heaps = 1).contains("num_heaps is 1, but it must be 2 to 16"));
        assert!(refused(|c| c.num_heaps = 17).ends_with("set it to 16"));
        assert!(refused(|c| c.warmup_buffer_sizes_mb = vec![0]).contains("1 to 1024"));
        assert!(refused(|c| c.warmup_buffer_sizes_mb = vec![8, 1025]).contains("is 1025"));
        accepted(|c| (c.heap_size_mb, c.warmup_buffer_sizes_mb) = (1024, vec![1024]));
        assert!(refused(|c| c.max_heap_size_mb = 4096).contains("max_heap_size_mb is 4096"));
        assert!(refused(|c| c.min_heaps = 0).contains("min_heaps is 0"));
    }

    /// The settings that `docs/memory-pool.md` gives for machines, and the presets of the program.
    #[test]
    fn presets_break_no_rule() {
        for (heap_size_mb, num_heaps) in [(256, 3), (512, 4), (1024, 6), (512, 6), (128, 2)] {
            accepted(|c| (c.heap_size_mb, c.num_heaps) = (heap_size_mb, num_heaps));
        }
        accepted(|c| {
            (c.heap_size_mb, c.num_heaps, c.warmup_buffer_sizes_mb) = (128, 2, vec![32, 64]);
        });
    }

    #[test]
    fn impossible_pairs_name_both_fields() {
        let message = refused(|c| c.max_heap_size_mb = 128);
        assert!(message.contains("heap_size_mb is 256") && message.contains("max_heap_size_mb allows 128"));
        accepted(|c| c.max_heap_size_mb = 256);
        let message = refused(|c| c.min_heaps = 5);
        assert!(message.contains("num_heaps is 4") && message.contains("min_heaps asks for 5"));
        accepted(|c| c.min_heaps = 4);
    }

    #[test]
    fn a_warm_up_that_cannot_be_placed_is_an_error() {
        let message = refused(|c| c.warmup_buffer_sizes_mb = vec![32, 512]);
        assert!(
            message.contains("is 512") && message.contains("set memory_pool.heap_size_mb to 512"),
            "{message}"
        );
        // 200 MB would be within a heap of 200 MB, but not as the power of two that it counts as.
        let message = refused(|c| (c.heap_size_mb, c.warmup_buffer_sizes_mb) = (200, vec![200]));
        assert!(message.contains("buffers of 128 MB at most"), "{message}");
        accepted(|c| c.warmup_buffer_sizes_mb = vec![256; 4]);
        let message = refused(|c| c.warmup_buffer_sizes_mb = vec![1, 256, 256, 256, 256]);
        assert!(message.contains("num_heaps = 4 heaps of 256 MB do not hold"), "{message}");
        // Smallest first would leave no room for the large one in a heap of 96 = 64 + 32 MB.
        accepted(|c| (c.heap_size_mb, c.num_heaps, c.warmup_buffer_sizes_mb) = (96, 2, vec![32, 32, 64, 64]));
    }
}
