//! What the ring is set up with: `metal_optimizations.command_buffer_ring` of the configuration.

use std::time::Duration;

use crate::SettingError;

/// How a [`super::CommandRing`] works. The names are those of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRingConfig {
    /// Submissions in flight, 2 to 8. A further one waits for the oldest.
    pub ring_size: usize,
    /// Whether a submission waits when the ring is full. Otherwise it goes ahead at once, beyond the ring.
    pub wait_on_full_ring: bool,
    /// Longest wait, after which a submission goes ahead beyond the ring: 100 to 10 000 ms, or 0 for no limit.
    pub max_wait_ms: u64,
    /// Layers after which a recording that is not kept commits what it has, so that the device starts while the host
    /// still records: 1 to 128, or none to let the device choose.
    pub layers_per_command_buffer: Option<usize>,
    /// Whether the counters of [`super::CommandRingStatistics`] count. Its gauges are always true.
    pub track_statistics: bool,
    /// Whether a full ring says so in the log.
    pub log_ring_exhaustion: bool,
}

impl Default for CommandRingConfig {
    fn default() -> Self {
        Self {
            ring_size: 3,
            wait_on_full_ring: true,
            max_wait_ms: 1000,
            layers_per_command_buffer: None,
            track_statistics: true,
            log_ring_exhaustion: true,
        }
    }
}

impl CommandRingConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first field that is out of range, with its rule, its value, and a cure.
    pub fn validate(&self) -> Result<(), SettingError> {
        SettingError::within(
            "command_buffer_ring.ring_size",
            self.ring_size as u64,
            2..=8,
            Some("set 3; to have one submission at a time, switch the ring off instead"),
        )?;
        if self.max_wait_ms != 0 && !(100..=10_000).contains(&self.max_wait_ms) {
            return Err(SettingError::new(
                "command_buffer_ring.max_wait_ms",
                self.max_wait_ms,
                "it must be 100 to 10000, or 0 for no limit",
                "set 1000",
            ));
        }
        let layers = self.layers_per_command_buffer.map_or(1, |layers| layers as u64);
        let cure = Some("leave it out to let the device choose");
        SettingError::within("command_buffer_ring.layers_per_command_buffer", layers, 1..=128, cure)
    }

    /// Longest wait for the oldest submission.
    pub(super) fn max_wait(&self) -> Duration {
        // A submission may take minutes, a large prompt on a small machine; none takes a day.
        const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);
        if self.max_wait_ms == 0 { NO_LIMIT } else { Duration::from_millis(self.max_wait_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_are_the_documented_ones() {
        let config = CommandRingConfig::default();
        config.validate().unwrap();
        assert_eq!((config.ring_size, config.max_wait_ms, config.layers_per_command_buffer), (3, 1000, None));
        assert!(config.wait_on_full_ring && config.track_statistics && config.log_ring_exhaustion);
        assert_eq!(config.max_wait(), Duration::from_secs(1));
    }

    #[test]
    fn the_ends_of_each_range_are_inside_and_their_neighbours_are_not() {
        let with = |change: &dyn Fn(&mut CommandRingConfig)| {
            let mut config = CommandRingConfig::default();
            change(&mut config);
            config.validate().err().map(|error| error.to_string())
        };
        let ring = |n| with(&|config| config.ring_size = n);
        let wait = |n| with(&|config| config.max_wait_ms = n);
        let layers = |n| with(&|config| config.layers_per_command_buffer = Some(n));
        for fine in [ring(2), ring(8), wait(0), wait(100), wait(10_000), layers(1), layers(128)] {
            assert_eq!(fine, None);
        }
        for refused in [ring(1), ring(9), wait(1), wait(99), wait(10_001), layers(0), layers(129)] {
            let text = refused.unwrap();
            assert!(text.starts_with("command_buffer_ring.") && text.contains(", but it must be "), "{text}");
        }
    }

    #[test]
    fn no_limit_is_longer_than_any_limit() {
        let unlimited = CommandRingConfig { max_wait_ms: 0, ..CommandRingConfig::default() };
        assert_eq!(unlimited.max_wait(), Duration::from_secs(86_400), "a day");
    }
}
