//! What happens beside the requests: optimisations change, and those that were latched off are armed again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bessemer_engine::{Engine, EngineError, Feature, Master, Optimizations};
use bessemer_hal::DeviceError;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Between two looks for features that were latched off.
const PAUSE: Duration = Duration::from_millis(5);
/// Looks between two changes.
const CHANGE: u64 = 4;

/// What was changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) switched: u64,
    pub(super) rearmed: u64,
    /// A change that was refused for no reason of the device.
    pub(super) wrong: Option<EngineError>,
}

/// Changes settings, if `switches`, and arms features again until `over`.
pub(super) fn disturb(
    engine: &Engine,
    settings: &Optimizations,
    switches: bool,
    seed: u64,
    over: &AtomicBool,
) -> Changes {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut changes = Changes::default();
    for look in 0_u64.. {
        if over.load(Ordering::Acquire) {
            break;
        }
        if switches && look.is_multiple_of(CHANGE) {
            match engine.update_optimizations(any_of(settings, &mut rng)) {
                Ok(()) => changes.switched += 1,
                Err(error) => changes.wrong = changes.wrong.take().or(wrong(error)),
            }
        }
        for feature in Feature::ALL {
            changes.rearmed += u64::from(engine.rearm(feature));
        }
        std::thread::sleep(PAUSE);
    }
    changes
}

/// `settings` with each switch thrown at random; the master switch is on in three of four.
fn any_of(settings: &Optimizations, rng: &mut SmallRng) -> Optimizations {
    let mut settings = settings.clone();
    settings.enabled = if rng.random_range(0..4) > 0 { Master::On } else { Master::Off };
    for feature in Feature::ALL {
        *settings.switch(feature) = rng.random();
    }
    settings
}

/// An error that no device is the reason of.
fn wrong(error: EngineError) -> Option<EngineError> {
    match error {
        EngineError::Device(
            DeviceError::OutOfMemory { .. } | DeviceError::Timeout { .. } | DeviceError::Submission { .. },
        ) => None,
        error => Some(error),
    }
}
