//! The three optimisations as a user sees them: which are wanted, which work, and why one does not.
//!
//! - *Wanted* is what the settings say; *active* is wanted and not latched.
//! - A feature that failed is *latched* off with its reason, until it is re-armed or the settings change. The work that met
//!   the failure is done in the plain way.
//! - Without [`Optimizations::graceful_fallback`] nothing is latched, and the failure is the caller's.

use bessemer_hal::DeviceError;
use serde::Serialize;

use crate::command_ring::{CommandRingConfig, CommandRingConfigError, CommandRingStatistics};
use crate::memory_budget::MemoryBudgetGauges;
use crate::memory_pool::{MemoryPoolConfig, MemoryPoolConfigError, MemoryPoolStatistics};
use crate::transfer_queue::{TransferConfigError, TransferMetrics, TransferQueueConfig};

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

/// `metal_optimizations` of the configuration. The default has everything on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Optimizations {
    /// The master switch.
    pub enabled: bool,
    /// Whether a feature that fails is latched off and its work done in the plain way. Otherwise the failure is an error.
    pub graceful_fallback: bool,
    /// Whether that is logged.
    pub log_fallbacks: bool,
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
            enabled: true,
            graceful_fallback: true,
            log_fallbacks: true,
            memory_pool: FeatureSettings::default(),
            blit_queue: FeatureSettings::default(),
            command_buffer_ring: FeatureSettings::default(),
        }
    }
}

/// A setting that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptimizationsError {
    /// Of the memory pool.
    #[error(transparent)]
    MemoryPool(#[from] MemoryPoolConfigError),
    /// Of the transfer queue.
    #[error(transparent)]
    BlitQueue(#[from] TransferConfigError),
    /// Of the command ring.
    #[error(transparent)]
    CommandBufferRing(#[from] CommandRingConfigError),
}

impl From<OptimizationsError> for DeviceError {
    fn from(error: OptimizationsError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Optimizations {
    /// Everything off: the plain path.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// Only these features on.
    pub fn only(features: &[Feature]) -> Self {
        let mut settings = Self::default();
        for feature in Feature::ALL {
            *settings.switch(feature) = features.contains(&feature);
        }
        settings
    }

    /// Whether a feature is wanted.
    pub fn wants(&self, feature: Feature) -> bool {
        self.enabled
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

    /// Checks every rule.
    ///
    /// # Errors
    /// The first setting that breaks one, with the rule, the value and what to do.
    pub fn validate(&self) -> Result<(), OptimizationsError> {
        self.memory_pool.config.validate()?;
        self.blit_queue.config.validate()?;
        self.command_buffer_ring.config.validate()?;
        Ok(())
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
    /// Times the host waited for a step while the device had nothing to do behind it.
    pub host_waits: u64,
    /// Nanoseconds in which the device ran steps, by its own clock.
    pub busy_ns: u64,
}

/// `getMetalOptimizationsStats`: everything that is counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizationStats {
    /// The master switch.
    pub enabled: bool,
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

/// What is wanted, and what became of it.
#[derive(Debug)]
pub(crate) struct Standing {
    settings: Optimizations,
    latched: [Option<String>; 3],
    fallbacks: [u64; 3],
}

impl Standing {
    pub(crate) fn new(settings: Optimizations) -> Self {
        Self { settings, latched: Default::default(), fallbacks: [0; 3] }
    }

    pub(crate) fn settings(&self) -> &Optimizations {
        &self.settings
    }

    /// Other settings; what is switched on anew is re-armed.
    pub(crate) fn set(&mut self, settings: Optimizations) {
        for feature in Feature::ALL {
            if settings.wants(feature) && !self.settings.wants(feature) {
                self.rearm(feature);
            }
        }
        self.settings = settings;
    }

    pub(crate) fn is_active(&self, feature: Feature) -> bool {
        self.settings.wants(feature) && self.latched[feature as usize].is_none()
    }

    /// Latches a feature; `false` when it is not active, or failures are errors.
    pub(crate) fn latch(&mut self, feature: Feature, reason: String) -> bool {
        if !self.is_active(feature) || !self.settings.graceful_fallback {
            return false;
        }
        if self.settings.log_fallbacks {
            tracing::warn!(
                feature = feature.name(),
                reason,
                "latched off; its work is done in the plain way"
            );
        }
        self.latched[feature as usize] = Some(reason);
        self.fallbacks[feature as usize] += 1;
        true
    }

    pub(crate) fn rearm(&mut self, feature: Feature) -> bool {
        self.latched[feature as usize].take().is_some()
    }

    pub(crate) fn report(&self) -> Vec<FeatureStatus> {
        let status = |feature: Feature| FeatureStatus {
            feature,
            wanted: self.settings.wants(feature),
            active: self.is_active(feature),
            latched: self.latched[feature as usize].clone(),
            fallbacks: self.fallbacks[feature as usize],
        };
        Feature::ALL.map(status).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_switch_is_above_all() {
        let mut settings = Optimizations::only(&[Feature::BlitQueue]);
        assert_eq!(Feature::ALL.map(|feature| settings.wants(feature)), [false, true, false]);
        settings.enabled = false;
        assert_eq!(Feature::ALL.map(|feature| settings.wants(feature)), [false; 3]);
        assert_eq!(Feature::ALL.map(|feature| Optimizations::default().wants(feature)), [true; 3]);
        assert_eq!(Feature::ALL.map(|feature| Optimizations::off().wants(feature)), [false; 3]);
    }

    #[test]
    fn a_latched_feature_stays_off_until_it_is_armed_again() {
        let mut standing = Standing::new(Optimizations::default());
        assert!(standing.latch(Feature::MemoryPool, "no memory".into()));
        assert!(!standing.latch(Feature::MemoryPool, "again".into()), "it is off already");
        assert_eq!(Feature::ALL.map(|feature| standing.is_active(feature)), [false, true, true]);
        let report = standing.report();
        assert_eq!((report[0].latched.as_deref(), report[0].fallbacks), (Some("no memory"), 1));
        assert!(report[0].wanted && !report[0].active && report[1].active);
        assert!(standing.rearm(Feature::MemoryPool) && !standing.rearm(Feature::MemoryPool));
        assert!(standing.is_active(Feature::MemoryPool));
    }

    #[test]
    fn switching_off_and_on_arms_again_and_other_settings_do_not() {
        let mut standing = Standing::new(Optimizations::default());
        standing.latch(Feature::CommandBufferRing, "it hung".into());
        standing.set(Optimizations { log_fallbacks: false, ..Optimizations::default() });
        assert!(!standing.is_active(Feature::CommandBufferRing));
        standing.set(Optimizations::off());
        standing.set(Optimizations::default());
        assert!(standing.is_active(Feature::CommandBufferRing));
        assert_eq!(standing.report()[2].fallbacks, 1);
    }

    #[test]
    fn without_fallback_a_failure_is_the_callers() {
        let mut standing =
            Standing::new(Optimizations { graceful_fallback: false, ..Optimizations::default() });
        assert!(!standing.latch(Feature::BlitQueue, "it timed out".into()));
        assert!(standing.is_active(Feature::BlitQueue));
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
