//! Measured values, counted in buckets.
//!
//! An observation is two additions to atomic numbers and a search among some twenty bounds: no lock, no allocation, some
//! ten nanoseconds. So every event is measured, and none is estimated. The number of observations is not kept beside the
//! buckets but is their sum, so that the two always agree, whenever somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of a histogram's buckets, and what a value counts.
#[derive(Debug)]
pub struct Buckets {
    bounds: &'static [u64],
    per_unit: u64,
}

impl Buckets {
    /// Ascending bounds in the values that [`Histogram::observe`] takes; `per_unit` of these are one unit of
    /// [`HistogramSnapshot`]: 10⁹ where nanoseconds are told as seconds, 1 where things are counted.
    pub const fn new(bounds: &'static [u64], per_unit: u64) -> Self {
        Self { bounds, per_unit }
    }

    /// The bounds, in units.
    pub fn bounds(&self) -> impl Iterator<Item = f64> {
        self.bounds.iter().map(|bound| self.in_units(*bound))
    }

    fn in_units(&self, value: u64) -> f64 {
        value as f64 / self.per_unit as f64
    }
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// Times of the device and of what serves it, in nanoseconds, told in seconds: 1 µs to 500 µs, then 1 ms to 100 ms.
pub static DEVICE_TIMES: Buckets = Buckets::new(
    &[
        US,
        2 * US,
        5 * US,
        10 * US,
        20 * US,
        50 * US,
        100 * US,
        200 * US,
        500 * US,
        MS,
        5 * MS,
        10 * MS,
        50 * MS,
        100 * MS,
    ],
    1_000_000_000,
);

/// Counts values by size. Shared by reference between those who observe and those who look.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    /// One for each bound, and one above.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Without any observation.
    pub fn new(buckets: &'static Buckets) -> Self {
        let counts = (0..=buckets.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a value into the first bucket whose bound is not below it.
    pub fn observe(&self, value: u64) {
        let at = self.buckets.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time, in nanoseconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The sum of all values so far.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// What was observed so far. Values that come meanwhile are in it or not, each for itself.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut count = 0;
        let mut at_most = self.counts.iter().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        let buckets = self.buckets.bounds().zip(&mut at_most).collect();
        let count = at_most.next().unwrap_or_default();
        HistogramSnapshot { buckets, count, sum: self.buckets.in_units(self.sum()) }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Upper bounds, in units, each with the number of values that are not above it.
    pub buckets: Vec<(f64, u64)>,
    /// All values.
    pub count: u64,
    /// Their sum, in units.
    pub sum: f64,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    static SMALL: Buckets = Buckets::new(&[10, 20, 40], 10);

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        let histogram = Histogram::new(&SMALL);
        for value in [0, 10, 11, 20, 21, 40, 41, 1000] {
            histogram.observe(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets, [(1.0, 2), (2.0, 4), (4.0, 6)]);
        assert_eq!((snapshot.count, snapshot.sum), (8, 114.3));
        assert_eq!(histogram.sum(), 1143);
    }

    #[test]
    fn nothing_observed_is_zero_everywhere() {
        let snapshot = Histogram::new(&SMALL).snapshot();
        assert_eq!(snapshot.buckets, [(1.0, 0), (2.0, 0), (4.0, 0)]);
        assert_eq!((snapshot.count, snapshot.sum), (0, 0.0));
    }

    #[test]
    fn times_are_nanoseconds_told_in_seconds() {
        let histogram = Histogram::new(&DEVICE_TIMES);
        histogram.observe_time(Duration::from_micros(1));
        histogram.observe_time(Duration::from_nanos(1_001));
        histogram.observe_time(Duration::from_millis(101));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets[..2], [(1e-6, 1), (2e-6, 2)]);
        assert_eq!(snapshot.buckets.last(), Some(&(0.1, 2)));
        assert_eq!(snapshot.count, 3);
        assert!((snapshot.sum - 0.101_002_001).abs() < 1e-12);
        assert!(DEVICE_TIMES.bounds.is_sorted_by(|low, high| low < high));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let histogram = Arc::new(Histogram::new(&SMALL));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let histogram = histogram.clone();
                std::thread::spawn(move || {
                    (0..10_000).for_each(|value| histogram.observe(value % 50 + thread))
                })
            })
            .collect();
        let mut last = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            let snapshot = histogram.snapshot();
            let counts = || snapshot.buckets.iter().map(|(_, count)| *count).chain([snapshot.count]);
            assert!(counts().is_sorted() && snapshot.count >= last, "{snapshot:?}");
            last = snapshot.count;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(histogram.snapshot().count, 40_000);
        let values = |thread: u64| (0..10_000_u64).map(move |value| value % 50 + thread);
        assert_eq!(histogram.sum(), (0..4).flat_map(values).sum::<u64>());
    }

    /// What an observation costs: `cargo test --release -p bessemer-runtime --lib cost -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_an_observation() {
        const OBSERVATIONS: u32 = 10_000_000;
        let histogram = Histogram::new(&DEVICE_TIMES);
        let begin = std::time::Instant::now();
        for value in 0..OBSERVATIONS {
            histogram.observe(std::hint::black_box(u64::from(value) * 7919 % (200 * MS)));
        }
        println!("observe: {:.1} ns", begin.elapsed().as_nanos() as f64 / f64::from(OBSERVATIONS));
        let begin = std::time::Instant::now();
        for _ in 0..OBSERVATIONS {
            histogram.observe_time(std::time::Instant::now().elapsed());
        }
        println!("with its clock: {:.1} ns", begin.elapsed().as_nanos() as f64 / f64::from(OBSERVATIONS));
        assert_eq!(histogram.snapshot().count, u64::from(2 * OBSERVATIONS));
    }
}
