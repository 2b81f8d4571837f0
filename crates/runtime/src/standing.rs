//! Where the optimisations stand: what is wanted, what a self-check found, what has failed.

use crate::{FallbackLogLevel, FallbackReason, Feature, FeatureStatus, Master, Optimizations, Verdict};

/// How far [`Master::Auto`] is. The other settings of the master switch do not ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AutoState {
    /// Nothing is known: the plain path.
    #[default]
    Unchecked,
    /// A self-check tries the features.
    Trial,
    /// It has ended.
    Judged(Verdict),
}

/// What is wanted, and what became of it.
#[derive(Debug)]
pub(crate) struct Standing {
    settings: Optimizations,
    auto: AutoState,
    latched: [Option<String>; 3],
    /// By feature and reason.
    fallbacks: [[u64; FallbackReason::ALL.len()]; 3],
}

impl Standing {
    pub(crate) fn new(settings: Optimizations) -> Self {
        Self {
            settings,
            auto: AutoState::Unchecked,
            latched: Default::default(),
            fallbacks: Default::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Optimizations {
        &self.settings
    }

    /// Other settings; what is switched on anew is re-armed, and a verdict on others counts no more.
    pub(crate) fn set(&mut self, settings: Optimizations) {
        if settings != self.settings {
            self.auto = AutoState::Unchecked;
        }
        for feature in Feature::ALL {
            if settings.wants(feature) && !self.settings.wants(feature) {
                self.rearm(feature);
            }
        }
        self.settings = settings;
    }

    pub(crate) fn set_auto(&mut self, auto: AutoState) {
        self.auto = auto;
    }

    /// What the master switch goes by, when it goes by something.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        match &self.auto {
            AutoState::Judged(verdict) if self.settings.enabled == Master::Auto => Some(verdict),
            _ => None,
        }
    }

    pub(crate) fn is_active(&self, feature: Feature) -> bool {
        let allowed = self.settings.enabled != Master::Auto
            || match &self.auto {
                AutoState::Unchecked => false,
                AutoState::Trial => true,
                AutoState::Judged(verdict) => verdict.is_on(),
            };
        allowed && self.settings.wants(feature) && self.latched[feature as usize].is_none()
    }

    /// Latches a feature; `false` when it is not active, or failures are errors.
    pub(crate) fn latch(&mut self, feature: Feature, kind: FallbackReason, reason: String) -> bool {
        if !self.is_active(feature) || !self.settings.graceful_fallback {
            return false;
        }
        if self.settings.log_fallbacks {
            tell(self.settings.fallback_log_level, feature, &reason);
        }
        self.latched[feature as usize] = Some(reason);
        self.fallbacks[feature as usize][kind as usize] += 1;
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
            fallbacks: self.fallbacks[feature as usize].iter().sum(),
            fallback_reasons: FallbackReason::ALL.into_iter().zip(self.fallbacks[feature as usize]).collect(),
        };
        Feature::ALL.map(status).to_vec()
    }
}

/// The level of a line of the log is fixed where it is written, so there is a line for each.
fn tell(level: FallbackLogLevel, feature: Feature, reason: &str) {
    const MESSAGE: &str = "latched off; its work is done in the plain way";
    let feature = feature.name();
    match level {
        FallbackLogLevel::Error => tracing::error!(feature, reason, "{MESSAGE}"),
        FallbackLogLevel::Warn => tracing::warn!(feature, reason, "{MESSAGE}"),
        FallbackLogLevel::Info => tracing::info!(feature, reason, "{MESSAGE}"),
        FallbackLogLevel::Debug => tracing::debug!(feature, reason, "{MESSAGE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::logged;

    #[test]
    fn a_fallback_is_as_loud_as_asked_for() {
        let lines = |level, log_fallbacks| {
            let settings = Optimizations { fallback_log_level: level, log_fallbacks, ..Optimizations::on() };
            let mut standing = Standing::new(settings);
            logged(|| {
                assert!(standing.latch(Feature::MemoryPool, FallbackReason::OutOfMemory, "no memory".into()))
            })
        };
        for (level, name) in [
            (FallbackLogLevel::Error, "ERROR"),
            (FallbackLogLevel::Warn, "WARN"),
            (FallbackLogLevel::Info, "INFO"),
        ] {
            let said = lines(level, true);
            assert!(said.len() == 1 && said[0].contains(name) && said[0].contains("no memory"), "{said:?}");
            assert_eq!(lines(level, false), [""; 0]);
        }
        assert_eq!(lines(FallbackLogLevel::Debug, true), [""; 0], "these lines begin at info");
    }

    #[test]
    fn a_latched_feature_stays_off_until_it_is_armed_again() {
        let mut standing = Standing::new(Optimizations::on());
        assert!(standing.latch(Feature::MemoryPool, FallbackReason::OutOfMemory, "no memory".into()));
        assert!(
            !standing.latch(Feature::MemoryPool, FallbackReason::Other, "again".into()),
            "it is off already"
        );
        assert_eq!(Feature::ALL.map(|feature| standing.is_active(feature)), [false, true, true]);
        let report = standing.report();
        assert_eq!((report[0].latched.as_deref(), report[0].fallbacks), (Some("no memory"), 1));
        assert!(report[0].wanted && !report[0].active && report[1].active);
        assert!(standing.rearm(Feature::MemoryPool) && !standing.rearm(Feature::MemoryPool));
        assert!(standing.is_active(Feature::MemoryPool));
    }

    #[test]
    fn switching_off_and_on_arms_again_and_other_settings_do_not() {
        let mut standing = Standing::new(Optimizations::on());
        standing.latch(Feature::CommandBufferRing, FallbackReason::Timeout, "it hung".into());
        standing.set(Optimizations { log_fallbacks: false, ..Optimizations::on() });
        assert!(!standing.is_active(Feature::CommandBufferRing));
        standing.set(Optimizations::off());
        standing.set(Optimizations::on());
        assert!(standing.is_active(Feature::CommandBufferRing));
        let told = &standing.report()[2];
        assert_eq!((told.fallbacks, told.fallback_reasons[&FallbackReason::Timeout]), (1, 1));
        assert_eq!(
            told.fallback_reasons.len(),
            FallbackReason::ALL.len(),
            "each reason is there, counted or not"
        );
        assert_eq!(told.fallback_reasons.values().sum::<u64>(), 1);
    }

    #[test]
    fn without_fallback_a_failure_is_the_callers() {
        let mut standing = Standing::new(Optimizations { graceful_fallback: false, ..Optimizations::on() });
        assert!(!standing.latch(Feature::BlitQueue, FallbackReason::Timeout, "it timed out".into()));
        assert!(standing.is_active(Feature::BlitQueue));
    }

    #[test]
    fn auto_goes_by_the_verdict_on_these_settings() {
        let active = |standing: &Standing| Feature::ALL.map(|feature| standing.is_active(feature));
        let mut standing = Standing::new(Optimizations::default());
        assert_eq!((active(&standing), standing.verdict()), ([false; 3], None));
        standing.set_auto(AutoState::Trial);
        assert_eq!((active(&standing), standing.verdict()), ([true; 3], None));
        let good = Verdict::same_tokens(1.2, 0);
        standing.set_auto(AutoState::Judged(good.clone()));
        assert_eq!((active(&standing), standing.verdict()), ([true; 3], Some(&good)));
        standing.set(Optimizations::default());
        assert_eq!(active(&standing), [true; 3], "the same settings");
        standing.set(Optimizations { log_fallbacks: false, ..Optimizations::default() });
        assert_eq!((active(&standing), standing.verdict()), ([false; 3], None));
        standing.set_auto(AutoState::Judged(Verdict::failed("token 3 differs", 0)));
        assert_eq!(active(&standing), [false; 3]);
        standing.set(Optimizations::on());
        assert_eq!((active(&standing), standing.verdict()), ([true; 3], None), "who says on gets it");
    }
}
