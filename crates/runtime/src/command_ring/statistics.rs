//! What the ring counts, where it happens.

use std::time::Duration;

use bessemer_hal::{Result, Timing};
use serde::Serialize;

/// Counters since the start or the last reset, and gauges. A reset leaves the counters at what is taken and in flight,
/// so that `total_submitted − total_completed = in_flight` holds at every moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CommandRingStatistics {
    /// Submissions that the ring holds.
    pub ring_size: usize,
    /// Slots free now.
    pub available_count: usize,
    /// Submissions in flight now.
    pub in_flight: usize,
    /// Slots taken so far.
    pub total_acquired: u64,
    /// Command buffers submitted so far.
    pub total_submitted: u64,
    /// Submissions that were seen to end, well or not.
    pub total_completed: u64,
    /// Of these, those that failed.
    pub total_failed: u64,
    /// Share of the submissions whose commands had been submitted before.
    pub reuse_rate: f64,
    /// Times the host waited for a slot, or, with the ring off, for a submission.
    pub wait_events: u64,
    /// Waits that ran out of time.
    pub timeout_events: u64,
    /// Submissions that went ahead beyond the ring.
    pub exhaustion_events: u64,
    /// Mean of the waits in milliseconds.
    pub avg_wait_ms: f64,
    /// The longest wait in milliseconds.
    pub max_wait_ms: f64,
    /// Nanoseconds in which the device ran submissions, by its own clock.
    pub busy_ns: u64,
    /// Nanoseconds from the start of the first of these submissions to the end of the last.
    pub span_ns: u64,
}

impl CommandRingStatistics {
    /// Share of the time in which the device was at work: from 0 to 1, and 0 when nothing has run.
    pub fn gpu_utilization(&self) -> f64 {
        if self.span_ns == 0 { 0.0 } else { self.busy_ns as f64 / self.span_ns as f64 }
    }
}

/// The counters as they are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) acquired: u64,
    pub(super) submitted: u64,
    pub(super) reused: u64,
    /// Of those submitted, those that were in flight when counting began: it is not known whether they are reused.
    before: u64,
    completed: u64,
    failed: u64,
    waits: u64,
    timeouts: u64,
    pub(super) exhaustions: u64,
    waited: Duration,
    longest_wait: Duration,
    busy_ns: u64,
    first_start_ns: Option<u64>,
    last_end_ns: u64,
}

impl Counters {
    /// With slots that are taken, and in part in flight, already.
    pub(super) fn new(taken: usize, in_flight: usize) -> Self {
        let (acquired, before) = (taken as u64, in_flight as u64);
        Self { acquired, submitted: before, before, ..Self::default() }
    }

    /// Somebody came to the end of a wait, if there was one; `late`: because its time was over.
    pub(super) fn arrived(&mut self, waited: Option<Duration>, late: bool) {
        let Some(time) = waited else { return };
        self.waits += 1;
        self.timeouts += u64::from(late);
        self.waited += time;
        self.longest_wait = self.longest_wait.max(time);
    }

    pub(super) fn ended(&mut self, outcome: &Result<Timing>) {
        self.completed += 1;
        match outcome {
            Err(_) => self.failed += 1,
            Ok(Timing { start_ns, end_ns }) => {
                // Submissions of one queue run one after the other, so what overlaps is the clock's grain.
                let start = (*start_ns).max(self.last_end_ns);
                self.busy_ns += end_ns.saturating_sub(start);
                self.first_start_ns =
                    Some(self.first_start_ns.map_or(*start_ns, |first| first.min(*start_ns)));
                self.last_end_ns = self.last_end_ns.max(*end_ns);
            }
        }
    }

    pub(super) fn report(&self, ring_size: usize, taken: usize, in_flight: usize) -> CommandRingStatistics {
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        CommandRingStatistics {
            ring_size,
            available_count: ring_size.saturating_sub(taken),
            in_flight,
            total_acquired: self.acquired,
            total_submitted: self.submitted,
            total_completed: self.completed,
            total_failed: self.failed,
            reuse_rate: share(self.reused, self.submitted - self.before),
            wait_events: self.waits,
            timeout_events: self.timeouts,
            exhaustion_events: self.exhaustions,
            avg_wait_ms: share(self.waited.as_nanos() as u64, self.waits) / 1e6,
            max_wait_ms: self.longest_wait.as_secs_f64() * 1e3,
            busy_ns: self.busy_ns,
            span_ns: self.first_start_ns.map_or(0, |first| self.last_end_ns - first),
        }
    }
}

#[cfg(test)]
mod tests {
    use bessemer_hal::DeviceError;

    use super::*;

    #[test]
    fn times_are_those_of_the_device() {
        let mut counters = Counters::default();
        for (start_ns, end_ns) in [(100, 200), (250, 300), (290, 400)] {
            counters.ended(&Ok(Timing { start_ns, end_ns }));
        }
        counters.ended(&Err(DeviceError::Lost("gone".into())));
        let report = counters.report(3, 1, 1);
        assert_eq!((report.busy_ns, report.span_ns), (250, 300));
        assert!((report.gpu_utilization() - 250.0 / 300.0).abs() < 1e-9);
        assert_eq!((report.total_completed, report.total_failed, report.available_count), (4, 1, 2));
    }

    #[test]
    fn nothing_has_no_rates() {
        let report = Counters::default().report(3, 0, 0);
        assert_eq!((report.reuse_rate, report.avg_wait_ms, report.gpu_utilization()), (0.0, 0.0, 0.0));
        assert_eq!(report.available_count, 3);
    }

    #[test]
    fn waits_have_a_mean_and_a_longest() {
        let mut counters = Counters { submitted: 4, reused: 3, ..Counters::default() };
        counters.arrived(Some(Duration::from_millis(3)), true);
        counters.arrived(Some(Duration::from_millis(1)), false);
        counters.arrived(None, true);
        let report = counters.report(2, 5, 5);
        assert_eq!((report.wait_events, report.avg_wait_ms, report.max_wait_ms), (2, 2.0, 3.0));
        assert_eq!(report.timeout_events, 1);
        assert_eq!((report.reuse_rate, report.available_count), (0.75, 0));
    }
}
