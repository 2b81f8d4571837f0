//! What a self-check found out: whether the optimisations help on this machine, with this model.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The throughput that the optimised path must have at least; the plain path has 1.
const LEAST_SPEEDUP: f64 = 0.95;

/// The outcome of a self-check, which [`crate::Master::Auto`] goes by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Throughput of the optimised path over that of the plain path; absent where the check had an earlier end. In
    /// thousandths: so many digits it has at most, and the same when it was written to a file and read.
    speedup: Option<f64>,
    /// Why the check had an earlier end.
    failure: Option<String>,
    /// When the check was made, in seconds since 1970.
    checked_at: u64,
}

impl Verdict {
    /// Both paths gave the same tokens, and the optimised one `speedup` times the throughput of the plain one.
    pub fn same_tokens(speedup: f64, checked_at: u64) -> Self {
        let speedup = (speedup * 1000.0).round() / 1000.0;
        Self { speedup: Some(speedup), failure: None, checked_at }
    }

    /// The optimised path is not to be used because of `failure`.
    pub fn failed(failure: impl Into<String>, checked_at: u64) -> Self {
        Self { speedup: None, failure: Some(failure.into()), checked_at }
    }

    /// Whether the optimisations are on: the tokens were the same, and the throughput at least 0.95 × the plain one.
    pub fn is_on(&self) -> bool {
        self.failure.is_none() && self.speedup.is_some_and(|speedup| speedup >= LEAST_SPEEDUP)
    }

    /// Throughput of the optimised path over that of the plain path, where both were measured.
    pub fn speedup(&self) -> Option<f64> {
        self.speedup
    }

    /// When the check was made, in seconds since 1970.
    pub fn checked_at(&self) -> u64 {
        self.checked_at
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.failure, self.speedup) {
            (Some(failure), _) => write!(f, "off because {failure}")?,
            (None, Some(speedup)) if self.is_on() => write!(f, "on, {speedup:.2} × plain")?,
            (None, Some(speedup)) => {
                write!(f, "off because {speedup:.2} × plain is below {LEAST_SPEEDUP}")?;
            }
            (None, None) => write!(f, "off because nothing was measured")?,
        }
        let (year, month, day) = date(self.checked_at);
        write!(f, ", checked {year}-{month:02}-{day:02}")
    }
}

/// Year, month and day, in UTC, of a moment in seconds since 1970. After Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`.
fn date(seconds: u64) -> (u64, u64, u64) {
    // Years begin in March, so that the day of a leap year is their last.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tokens_at_95_percent_are_enough() {
        for (speedup, on) in [(0.949, false), (0.95, true), (1.31, true), (f64::NAN, false)] {
            assert_eq!(Verdict::same_tokens(speedup, 0).is_on(), on, "{speedup}");
        }
        assert!(!Verdict::failed("the third token differs", 0).is_on());
    }

    #[test]
    fn it_says_what_it_goes_by() {
        let day = 1_795_280_400;
        let text = |verdict: Verdict| verdict.to_string();
        assert_eq!(text(Verdict::same_tokens(1.312, day)), "on, 1.31 × plain, checked 2026-11-21");
        assert_eq!(
            text(Verdict::same_tokens(0.8, day)),
            "off because 0.80 × plain is below 0.95, checked 2026-11-21"
        );
        assert_eq!(
            text(Verdict::failed("token 3 differs", 0)),
            "off because token 3 differs, checked 1970-01-01"
        );
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, expected) in [
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (364, (1970, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days * 86_400 + 86_399), expected);
        }
    }
}
