//! How often an exhausted pool says so.

use std::time::{Duration, Instant};

/// Between two lines of the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one of many messages through per [`INTERVAL`], and counts the others: an exhausted pool is exhausted some
/// hundred times a step.
#[derive(Debug, Default)]
pub(super) struct ExhaustionLog {
    last: Option<Instant>,
    suppressed: u64,
}

impl ExhaustionLog {
    /// Whether to write a line now; with the number of those that were not written since the last one.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds() {
        let mut log = ExhaustionLog::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(log.admit(at(0)), Some(0));
        assert_eq!(log.admit(at(1)), None);
        assert_eq!(log.admit(at(9)), None);
        assert_eq!(log.admit(at(10)), Some(2));
        assert_eq!(log.admit(at(19)), None);
        assert_eq!(log.admit(at(30)), Some(1));
    }
}
