//! What was said of late, for everything that is a difference.

use std::collections::VecDeque;

use super::stats::Stats;

/// Seconds over which rates are taken.
const WINDOW: f64 = 10.0;
/// Answers that are kept at most.
const KEPT: usize = 128;

/// The answers of the last seconds, the oldest first. The clock is the server's own, so that a late answer distorts
/// nothing.
#[derive(Debug, Default)]
pub struct History(VecDeque<Stats>);

impl History {
    /// Takes an answer. One of another process, which counts from zero, is the first of a new history.
    pub fn push(&mut self, stats: Stats) {
        let now = stats.uptime();
        if self.0.back().is_some_and(|last| last.uptime() > now) {
            self.0.clear();
        }
        self.0.push_back(stats);
        while self.0.len() > 2 && (self.0.len() > KEPT || now - self.0[0].uptime() > WINDOW) {
            self.0.pop_front();
        }
    }

    /// The newest answer.
    pub fn latest(&self) -> Option<&Stats> {
        self.0.back()
    }

    /// What a counter has grown by; absent where it is not told, or was reset.
    pub fn growth(&self, place: &str) -> Option<f64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let growth = last.number(place)? - first.number(place)?;
        (self.0.len() > 1 && growth >= 0.0).then_some(growth)
    }

    /// Growth of a counter a second.
    pub fn rate(&self, place: &str) -> Option<f64> {
        self.quotient(place, "/uptime_seconds")
    }

    /// Growth of one counter over that of another; where the other stands still, what both have come to since the
    /// start of the server, and absent where that is nothing too.
    pub fn mean(&self, part: &str, whole: &str) -> Option<f64> {
        let since_start = || {
            let whole = self.latest()?.number(whole).filter(|whole| *whole > 0.0)?;
            Some(self.latest()?.number(part)? / whole)
        };
        self.quotient(part, whole).or_else(since_start)
    }

    /// Growth of one counter over that of another; absent where the other stands still.
    fn quotient(&self, part: &str, whole: &str) -> Option<f64> {
        let whole = self.growth(whole).filter(|whole| *whole > 0.0)?;
        Some(self.growth(part)? / whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn history(answers: &[(f64, u64, u64)]) -> History {
        let mut history = History::default();
        for (uptime, tokens, nanos) in answers {
            history.push(Stats::new(json!({"uptime_seconds": uptime, "tokens": tokens, "nanos": nanos})));
        }
        history
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        assert_eq!(history(&[]).rate("/tokens"), None);
        assert_eq!(history(&[(5.0, 100, 0)]).rate("/tokens"), None, "one look is no rate");
        let two = history(&[(5.0, 100, 10), (7.0, 150, 30)]);
        assert_eq!((two.rate("/tokens"), two.quotient("/tokens", "/nanos")), (Some(25.0), Some(2.5)));
        let many: Vec<_> =
            (0..40).map(|at| (f64::from(at), if at < 20 { 0 } else { 7 * at as u64 }, 0)).collect();
        let many = history(&many);
        assert_eq!((many.rate("/tokens"), many.0.len()), (Some(7.0), 11));
        assert_eq!(many.quotient("/tokens", "/nanos"), None, "nothing passed");
        assert_eq!(
            history(&[(1.0, 30, 10), (2.0, 30, 10)]).mean("/tokens", "/nanos"),
            Some(3.0),
            "since the start"
        );
        assert_eq!(two.mean("/tokens", "/nanos"), Some(2.5), "of late");
        assert_eq!(many.mean("/tokens", "/nanos"), None);
        let seldom = history(&[(0.0, 0, 0), (60.0, 120, 0), (120.0, 360, 0)]);
        assert_eq!(seldom.rate("/tokens"), Some(4.0), "two looks are kept, however far apart");
    }

    #[test]
    fn a_server_that_was_started_again_begins_anew() {
        let again = history(&[(500.0, 900, 0), (501.0, 950, 0), (1.0, 10, 0), (2.0, 30, 0)]);
        assert_eq!((again.rate("/tokens"), again.0.len()), (Some(20.0), 2));
        let reset = history(&[(5.0, 900, 0), (6.0, 10, 0)]);
        assert_eq!(reset.rate("/tokens"), None);
        assert_eq!(history(&[(5.0, 1, 0), (5.0, 2, 0)]).rate("/tokens"), None, "no time has passed");
        assert_eq!(reset.rate("/nowhere"), None);
    }
}
