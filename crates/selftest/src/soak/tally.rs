//! What became of the requests of a soak.

use std::collections::BTreeMap;

use serde::Serialize;

use super::client::Ending;

/// Violations that are kept in words; all are counted.
const TOLD: usize = 20;
/// After so many violations a run is over: enough is known.
const ENOUGH: u64 = 200;

/// Requests, by how they ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Requests that have ended.
    pub ended: u64,
    /// With the right tokens.
    pub right: u64,
    /// Cancelled by their owners, with the right tokens up to there.
    pub cancelled: u64,
    /// Whose owners went away, with the right tokens up to there.
    pub left: u64,
    /// With a typed error of the device, by its kind, and the right tokens up to there.
    pub failed: BTreeMap<&'static str, u64>,
    /// Tokens that came.
    pub tokens: u64,
    /// Requests that broke a rule: a wrong token, another error, no end or two.
    pub violations: u64,
    /// The first of these.
    pub told: Vec<String>,
}

impl Tally {
    pub(super) fn note(&mut self, number: u64, ending: Ending, tokens: usize) {
        self.ended += 1;
        self.tokens += tokens as u64;
        match ending {
            Ending::Right => self.right += 1,
            Ending::Cancelled => self.cancelled += 1,
            Ending::Left => self.left += 1,
            Ending::Failed(kind) => *self.failed.entry(kind).or_default() += 1,
            Ending::Wrong(what) => self.violation(format!("request {number}: {what}")),
        }
    }

    pub(super) fn violation(&mut self, what: String) {
        self.violations += 1;
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }

    /// Whether it makes no sense to go on.
    pub(super) fn is_hopeless(&self) -> bool {
        self.violations >= ENOUGH
    }

    /// Requests that failed with a typed error.
    pub fn all_failed(&self) -> u64 {
        self.failed.values().sum()
    }
}
