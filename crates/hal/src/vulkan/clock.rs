//! The GPU's clock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Turns timestamps of all queues into nanoseconds of one clock that does not go back.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Length of a tick, in 2⁻²⁴ ns.
    tick: u64,
    /// The bits of a timestamp that count.
    mask: u64,
    /// The latest tick seen, with the rounds that the counter has made in its high bits.
    latest: AtomicU64,
}

impl Clock {
    /// `period` nanoseconds a tick, `bits` of which count.
    pub(crate) fn new(period: f32, bits: u32) -> Self {
        let mask = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        let tick = (f64::from(period) * f64::from(1_u32 << 24)).round() as u64;
        Self { tick, mask, latest: AtomicU64::new(0) }
    }

    /// Nanoseconds of a timestamp that was written lately: within half a round of the counter.
    pub(crate) fn nanos(&self, ticks: u64) -> u64 {
        let latest = self.latest.load(Ordering::Relaxed);
        let ticks = self.extend(ticks & self.mask, latest);
        self.latest.fetch_max(ticks, Ordering::Relaxed);
        ((u128::from(ticks) * u128::from(self.tick)) >> 24) as u64
    }

    fn extend(&self, ticks: u64, latest: u64) -> u64 {
        let round = latest & !self.mask;
        let half = self.mask / 2;
        let now = latest & self.mask;
        if ticks < now && now - ticks > half {
            // The counter has begun again.
            (round | ticks).wrapping_add(self.mask).wrapping_add(1)
        } else if ticks > now && ticks - now > half && round > 0 {
            // An earlier timestamp, of the round before, is read late.
            (round | ticks) - self.mask - 1
        } else {
            round | ticks
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds() {
        assert_eq!(Clock::new(1.0, 64).nanos(u64::MAX), u64::MAX);
        assert_eq!(Clock::new(52.083_332, 64).nanos(1_000_000) / 1000, 52_083);
    }

    #[test]
    fn a_counter_that_begins_again_goes_on() {
        let clock = Clock::new(1.0, 36);
        let last = (1 << 36) - 5;
        assert_eq!(clock.nanos(last), last);
        assert_eq!(clock.nanos(3), (1 << 36) + 3);
        // Read late, written before.
        assert_eq!(clock.nanos(last), last);
        assert_eq!(clock.nanos(9), (1 << 36) + 9);
        // Bits that do not count are no time.
        assert_eq!(clock.nanos((1 << 40) | 10), (1 << 36) + 10);
    }
}
