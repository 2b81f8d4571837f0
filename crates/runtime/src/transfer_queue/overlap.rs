//! How long transfers and compute really ran together: arithmetic of intervals on the device's clock.
//!
//! The overlap is the measure of the intersection of two sets: all moments at which a transfer ran, and all at which a
//! compute submission ran. A moment counts once, however many ran. Nothing is estimated.
//!
//! - The sets are kept as *disjoint intervals in order*; a new interval adds what it covers anew, intersected with the other
//!   set. So the sum is right at every moment, in whatever order the two sides are told.
//! - The *window* is bounded: of each set the last 256 intervals are kept. What lies before the window is closed: it takes no
//!   more intervals, so nothing counts twice. Submissions that are told within 256 of their kind are counted exactly.

use std::collections::VecDeque;

use bessemer_hal::Timing;

/// Intervals of each kind that are kept.
const WINDOW: usize = 256;

/// Transfers and compute, and how long they ran together.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    transfers: Moments,
    computes: Moments,
    together_ns: u64,
    transfer_ns: u64,
}

impl Overlap {
    /// A transfer ran.
    pub(super) fn add_transfer(&mut self, timing: Timing) {
        for fresh in self.transfers.insert(timing.start_ns, timing.end_ns) {
            self.transfer_ns = self.transfer_ns.saturating_add(fresh.length());
            self.together_ns = self.together_ns.saturating_add(self.computes.common(fresh));
        }
    }

    /// A compute submission ran.
    pub(super) fn add_compute(&mut self, timing: Timing) {
        for fresh in self.computes.insert(timing.start_ns, timing.end_ns) {
            self.together_ns = self.together_ns.saturating_add(self.transfers.common(fresh));
        }
    }

    /// Nanoseconds in which both ran.
    pub(super) fn together_ns(&self) -> u64 {
        self.together_ns
    }

    /// Nanoseconds in which a transfer ran.
    pub(super) fn transfer_ns(&self) -> u64 {
        self.transfer_ns
    }
}

/// From `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    start: u64,
    end: u64,
}

impl Interval {
    fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// A set of moments: disjoint intervals in order, which do not touch.
#[derive(Debug, Default)]
struct Moments {
    intervals: VecDeque<Interval>,
    /// Everything before it is closed.
    closed: u64,
}

impl Moments {
    /// Adds `start..end`; the result is the part that is new.
    fn insert(&mut self, start: u64, end: u64) -> Vec<Interval> {
        let start = start.max(self.closed);
        if start >= end {
            return Vec::new();
        }
        // Those that overlap or touch it become one with it.
        let first = self.intervals.partition_point(|i| i.end < start);
        let after = self.intervals.partition_point(|i| i.start <= end);
        let mut fresh = Vec::new();
        let mut from = start;
        let mut merged = Interval { start, end };
        for old in self.intervals.drain(first..after) {
            if from < old.start {
                fresh.push(Interval { start: from, end: old.start });
            }
            from = from.max(old.end);
            merged = Interval { start: merged.start.min(old.start), end: merged.end.max(old.end) };
        }
        if from < end {
            fresh.push(Interval { start: from, end });
        }
        self.intervals.insert(first, merged);
        if self.intervals.len() > WINDOW
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.closed = oldest.end;
        }
        fresh
    }

    /// Nanoseconds that the set has in common with an interval.
    fn common(&self, with: Interval) -> u64 {
        let first = self.intervals.partition_point(|i| i.end <= with.start);
        let overlapping = self.intervals.range(first..).take_while(|i| i.start < with.end);
        overlapping.map(|i| i.end.min(with.end).saturating_sub(i.start.max(with.start))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(start_ns: u64, end_ns: u64) -> Timing {
        Timing { start_ns, end_ns }
    }

    #[test]
    fn apart_touching_inside_and_across() {
        for (compute, expected) in [((0, 10), 0), ((0, 11), 1), ((12, 15), 3), ((18, 40), 2), ((0, 50), 10)] {
            let mut overlap = Overlap::default();
            overlap.add_transfer(timing(10, 20));
            overlap.add_compute(timing(compute.0, compute.1));
            assert_eq!((overlap.together_ns(), overlap.transfer_ns()), (expected, 10), "{compute:?}");
        }
    }

    #[test]
    fn a_moment_counts_once() {
        let mut overlap = Overlap::default();
        for _ in 0..3 {
            overlap.add_transfer(timing(10, 20));
            overlap.add_transfer(timing(15, 25));
            overlap.add_compute(timing(0, 22));
            overlap.add_compute(timing(12, 30));
        }
        assert_eq!((overlap.together_ns(), overlap.transfer_ns()), (15, 15));
    }

    #[test]
    fn empty_and_reversed_intervals_are_nothing() {
        let mut overlap = Overlap::default();
        overlap.add_compute(timing(0, 100));
        overlap.add_transfer(timing(50, 50));
        overlap.add_transfer(timing(60, 40));
        assert_eq!((overlap.together_ns(), overlap.transfer_ns()), (0, 0));
    }

    #[test]
    fn the_window_is_bounded_and_counts_nothing_twice() {
        let mut overlap = Overlap::default();
        overlap.add_compute(timing(0, u64::MAX));
        let total = 3 * WINDOW as u64;
        for _ in 0..2 {
            for i in 0..total {
                overlap.add_transfer(timing(i * 10, i * 10 + 5));
            }
        }
        assert_eq!(overlap.transfers.intervals.len(), WINDOW);
        assert_eq!((overlap.together_ns(), overlap.transfer_ns()), (total * 5, total * 5));
    }

    #[test]
    fn what_is_told_within_the_window_is_exact_for_ever() {
        let mut overlap = Overlap::default();
        // The computes lag behind by 200 transfers.
        for i in 0..2000_u64 {
            overlap.add_transfer(timing(i * 10, i * 10 + 6));
            if let Some(old) = i.checked_sub(200) {
                overlap.add_compute(timing(old * 10 + 4, old * 10 + 9));
            }
        }
        assert_eq!(overlap.together_ns(), 1800 * 2);
    }

    proptest::proptest! {
        /// Against a line of moments, each marked with who ran.
        #[test]
        fn agrees_with_counting_moments(
            runs in proptest::collection::vec((0_u64..200, 0_u64..40, proptest::bool::ANY), 0..60)
        ) {
            let mut overlap = Overlap::default();
            let mut line = [[false; 2]; 256];
            for (start, length, transfer) in runs {
                let run = timing(start, start + length);
                if transfer { overlap.add_transfer(run) } else { overlap.add_compute(run) }
                for moment in &mut line[start as usize..(start + length) as usize] {
                    moment[usize::from(transfer)] = true;
                }
                let both = line.iter().filter(|m| m[0] && m[1]).count() as u64;
                let moved = line.iter().filter(|m| m[1]).count() as u64;
                proptest::prop_assert_eq!((overlap.together_ns(), overlap.transfer_ns()), (both, moved));
                for set in [&overlap.transfers, &overlap.computes] {
                    let pairs = set.intervals.iter().zip(set.intervals.iter().skip(1));
                    proptest::prop_assert!(pairs.clone().all(|(a, b)| a.start < a.end && a.end < b.start));
                }
            }
        }
    }
}
