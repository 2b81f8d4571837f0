//! The three optimisations as a user sees them: which are wanted, which work, and why one does not.
//!
//! - *Wanted* is what the settings say; *active* is wanted and not latched. Under [`Master::Auto`] nothing is active
//!   before a [`Verdict`] has found the tokens the same and the throughput no worse ([`crate::AutoState`]).
//! - A feature that failed is *latched* off with its reason, until it is re-armed or the settings change. The work that met
//!   the failure is done in the plain way.
//! - Without [`Optimizations::graceful_fallback`] nothing is latched, and the failure is the caller's.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::command_ring::{CommandRingConfig, CommandRingStatistics};
use crate::memory_budget::MemoryBudgetGauges;
use crate::memory_pool::{MemoryPoolConfig, MemoryPoolStatistics};
use crate::transfer_queue::{TransferMetrics, TransferQueueConfig};
use crate::{FallbackLogLevel, FallbackReason, HistogramSnapshot, Master, SettingError, Verdict};

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// [`crate::MemoryPool`].
    MemoryPool,
    /// [`crate::TransferQueue`].
    BlitQueue,
    /// [`crate::CommandRing`].
    CommandBufferRing,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::MemoryPool, Self::BlitQueue, Self::CommandBufferRing];

    /// The name that configuration files have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryPool => "memory_pool",
            Self::BlitQueue => "blit_queue",
            Self::CommandBufferRing => "command_buffer_ring",
        }
    }
}

/// What is wanted of one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSettings<C> {
    /// Whether it is wanted, under the master switch.
    pub enabled: bool,
    /// How it works when it is.
    pub config: C,
}

impl<C: Default> Default for FeatureSettings<C> {
    fn default() -> Self {
        Self { enabled: true, config: C::default() }
    }
}

/// `metal_optimizations` of the configuration. The default wants everything, as far as it helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Optimizations {
    /// The master switch.
    pub enabled: Master,
    /// Whether a feature that fails is latched off and its work done in the plain way. Otherwise the failure is an error.
    pub graceful_fallback: bool,
    /// Whether that is logged.
    pub log_fallbacks: bool,
    /// How loudly.
    pub fallback_log_level: FallbackLogLevel,
    /// Transient memory from heaps.
    pub memory_pool: FeatureSettings<MemoryPoolConfig>,
    /// Transfers beside compute.
    pub blit_queue: FeatureSettings<TransferQueueConfig>,
    /// Submissions in flight.
    pub command_buffer_ring: FeatureSettings<CommandRingConfig>,
}

impl Default for Optimizations {
    fn default() -> Self {
        Self {
            enabled: Master::default(),
            graceful_fallback: true,
            log_fallbacks: true,
            fallback_log_level: FallbackLogLevel::default(),
            memory_pool: FeatureSettings::default(),
            blit_queue: FeatureSettings::default(),
            command_buffer_ring: FeatureSettings::default(),
        }
    }
}

impl Optimizations {
    /// Everything off: the plain path.
    pub fn off() -> Self {
        Self { enabled: Master::Off, ..Self::default() }
    }

    /// Everything on, unchecked.
    pub fn on() -> Self {
        Self { enabled: Master::On, ..Self::default() }
    }

    /// Only these features on, unchecked.
    pub fn only(features: &[Feature]) -> Self {
        let mut settings = Self::on();
        for feature in Feature::ALL {
            *settings.switch(feature) = features.contains(&feature);
        }
        settings
    }

    /// Whether a feature is wanted: always, or as far as it helps.
    pub fn wants(&self, feature: Feature) -> bool {
        self.enabled != Master::Off
            && match feature {
                Feature::MemoryPool => self.memory_pool.enabled,
                Feature::BlitQueue => self.blit_queue.enabled,
                Feature::CommandBufferRing => self.command_buffer_ring.enabled,
            }
    }

    /// The switch of a feature.
    pub fn switch(&mut self, feature: Feature) -> &mut bool {
        match feature {
            Feature::MemoryPool => &mut self.memory_pool.enabled,
            Feature::BlitQueue => &mut self.blit_queue.enabled,
            Feature::CommandBufferRing => &mut self.command_buffer_ring.enabled,
        }
    }

    /// These settings without what only says what is logged: two that are then equal do the same work.
    pub fn without_logging(&self) -> Self {
        let quiet = Self::default();
        let mut settings = Self {
            log_fallbacks: quiet.log_fallbacks,
            fallback_log_level: quiet.fallback_log_level,
            ..self.clone()
        };
        settings.memory_pool.config.log_pool_exhaustion = quiet.memory_pool.config.log_pool_exhaustion;
        settings.blit_queue.config.log_slow_operations = quiet.blit_queue.config.log_slow_operations;
        settings.blit_queue.config.verbose_logging = quiet.blit_queue.config.verbose_logging;
        settings.command_buffer_ring.config.log_ring_exhaustion =
            quiet.command_buffer_ring.config.log_ring_exhaustion;
        settings
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first setting that breaks one, with the rule, the value and what to do.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.memory_pool.config.validate()?;
        self.blit_queue.config.validate()?;
        self.command_buffer_ring.config.validate()
    }
}

/// Where one feature stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeatureStatus {
    /// Which.
    pub feature: Feature,
    /// Whether the settings want it.
    pub wanted: bool,
    /// Whether it works now.
    pub active: bool,
    /// Why it was latched off, if it was.
    pub latched: Option<String>,
    /// Times it was latched off since the start.
    pub fallbacks: u64,
    /// The same by reason, each of them.
    pub fallback_reasons: BTreeMap<FallbackReason, u64>,
}

/// Steps, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StepStatistics {
    /// Steps submitted.
    pub steps: u64,
    /// Of these, those that submitted the recording of an earlier step.
    pub resubmitted: u64,
    /// Nanoseconds that the host spent recording.
    pub encode_ns: u64,
    /// Nanoseconds in which the host got transient memory and gave it back, the pool being on or off; in part within
    /// `encode_ns`.
    pub allocation_ns: u64,
    /// Times the host waited for a step while the device had nothing to do behind it.
    pub host_waits: u64,
    /// Nanoseconds in which the device ran steps, by its own clock.
    pub busy_ns: u64,
}

/// `getMetalOptimizationsStats`: everything that is counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizationStats {
    /// The master switch.
    pub enabled: Master,
    /// What [`Master::Auto`] goes by; absent before its check has ended, and for the others.
    pub verdict: Option<Verdict>,
    /// Where each feature stands, in the order of [`Feature::ALL`].
    pub features: Vec<FeatureStatus>,
    /// Transient memory.
    pub memory_pool: MemoryPoolStatistics,
    /// Transfers.
    pub blit_queue: TransferMetrics,
    /// Submissions.
    pub command_buffer_ring: CommandRingStatistics,
    /// Steps.
    pub steps: StepStatistics,
    /// Device memory, by who holds it.
    pub memory: MemoryBudgetGauges,
}

/// What the optimisations took, event by event, in seconds. Measured with each of them on or off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizationTimes {
    /// Buffers handed out: [`crate::MemoryPool::acquire_times`].
    pub pool_acquire: HistogramSnapshot,
    /// Uploads: [`crate::TransferQueue::upload_times`].
    pub upload: HistogramSnapshot,
    /// Downloads: [`crate::TransferQueue::download_times`].
    pub download: HistogramSnapshot,
    /// Waits of the host for the ring: [`crate::CommandRing::waits`].
    pub ring_wait: HistogramSnapshot,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_switch_is_above_all() {
        let mut settings = Optimizations::only(&[Feature::BlitQueue]);
        assert_eq!(Feature::ALL.map(|feature| settings.wants(feature)), [false, true, false]);
        settings.enabled = Master::Off;
        assert_eq!(Feature::ALL.map(|feature| settings.wants(feature)), [false; 3]);
        assert_eq!(Feature::ALL.map(|feature| Optimizations::default().wants(feature)), [true; 3]);
        assert_eq!(Feature::ALL.map(|feature| Optimizations::off().wants(feature)), [false; 3]);
    }

    #[test]
    fn a_wrong_setting_names_its_feature() {
        let mut settings = Optimizations::default();
        settings.validate().unwrap();
        settings.command_buffer_ring.config.ring_size = 9;
        assert!(
            settings.validate().unwrap_err().to_string().starts_with("command_buffer_ring.ring_size is 9")
        );
        settings.blit_queue.config.timeout_ms = 1;
        assert!(settings.validate().unwrap_err().to_string().contains("blit_queue.timeout_ms"));
        settings.memory_pool.config.num_heaps = 1;
        assert!(settings.validate().unwrap_err().to_string().contains("memory_pool.num_heaps"));
    }
}
