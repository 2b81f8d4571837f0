//! What a soak found, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use bessemer_engine::{EngineInfo, EngineStats};
use bessemer_hal::fault::{Fault, FaultStatistics};
use serde::Serialize;

use super::Soak;
use super::samples::{Drift, Plateau, Sample};
use super::tally::Tally;
use crate::report::{DeviceFacts, Machine};

/// How far throughput may drift.
const DRIFT: f64 = 0.05;
/// Runs that are shorter say nothing about growth and drift: what is reserved when it is first needed, such as the ring for
/// transfers, or touched for the first time, is still coming.
const SHORT: f64 = 60.0;

/// A run at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Memory and counts.
    pub sample: Sample,
    /// Faults injected so far.
    pub faults: u64,
    /// Requests that ended in a typed error.
    pub failed: u64,
    /// Requests that broke a rule.
    pub violations: u64,
}

/// Everything that was found, and how.
#[derive(Clone, Debug, Serialize)]
pub struct SoakReport {
    /// Version of the program.
    pub version: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// On which device.
    pub device: DeviceFacts,
    /// Which model.
    pub model: EngineInfo,
    /// What was done.
    pub soak: Soak,
    /// How long it took.
    pub seconds: f64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// What was made to fail.
    pub faults: Option<Faults>,
    /// Changes of the optimisations.
    pub switched: u64,
    /// Optimisations that had been latched off and were armed again.
    pub rearmed: u64,
    /// Requests, by how they ended.
    pub requests: Tally,
    /// The engine's own counts, in the end.
    pub stats: EngineStats,
    /// Memory at the beginning and at the end; empty for a run that was too short.
    pub memory: Vec<Plateau>,
    /// Throughput at the beginning and at the end.
    pub throughput: Option<Drift>,
    /// What was left when the engine was gone; absent when it hung.
    pub remains: Option<Remains>,
    /// Every rule that was broken; none, when it passed.
    pub failures: Vec<String>,
}

/// Faults that were injected.
#[derive(Clone, Debug, Serialize)]
pub struct Faults {
    /// Calls of the device that could fail.
    pub calls: u64,
    /// Faults, by name.
    pub injected: BTreeMap<&'static str, u64>,
}

/// What is left after the engine, and should be nothing, except that as much was released as was acquired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// Buffers that the memory pool handed out.
    pub pool_acquired: u64,
    /// Buffers that it got back.
    pub pool_released: u64,
    /// Buffers that somebody holds.
    pub pool_live: u64,
    /// Blocks of the KV cache that somebody holds.
    pub kv_blocks: usize,
    /// Requests that were taken and have not ended.
    pub requests: u64,
    /// Bytes of device memory more than before the model was loaded.
    pub device_bytes: u64,
}

impl From<FaultStatistics> for Faults {
    fn from(statistics: FaultStatistics) -> Self {
        let injected = Fault::ALL.into_iter().map(|fault| (fault.name(), statistics.faults(fault)));
        Self { calls: statistics.all_calls(), injected: injected.filter(|(_, times)| *times > 0).collect() }
    }
}

impl Faults {
    /// Faults of all kinds.
    pub fn all(&self) -> u64 {
        self.injected.values().sum()
    }
}

impl Remains {
    /// Buffers that are neither back nor held by anybody.
    pub fn leaked(&self) -> i128 {
        i128::from(self.pool_acquired) - i128::from(self.pool_released) - i128::from(self.pool_live)
    }
}

impl SoakReport {
    /// Whether no rule was broken.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Adds what the figures tell to [`SoakReport::failures`].
    pub(super) fn judge(&mut self) {
        let mut broken = Vec::new();
        let tally = &self.requests;
        if tally.violations > 0 {
            broken.push(format!("{} requests broke a rule", tally.violations));
        }
        if self.faults.is_none() && tally.all_failed() > 0 {
            broken.push(format!("{} requests failed, and nothing was made to fail", tally.all_failed()));
        }
        if tally.right == 0 && tally.ended > 0 {
            broken.push("no request ended with the right tokens".into());
        }
        for plateau in self.memory.iter().filter(|plateau| self.is_long() && !plateau.holds()) {
            let Plateau { what, first, last, limit } = plateau;
            broken.push(format!("memory of {what} grew from {first} to {last} bytes; {limit} were allowed"));
        }
        if let Some(drift) = self.judged_drift().filter(|drift| drift.share().abs() > DRIFT) {
            let Drift { first, last } = drift;
            broken.push(format!("throughput drifted from {first:.1} to {last:.1} tok/s, more than 5 %"));
        }
        if let Some(remains) = &self.remains {
            let rules = [
                (remains.leaked() != 0, "buffers of the memory pool leaked"),
                (remains.pool_live > 0, "buffers of the memory pool are held"),
                (remains.kv_blocks > 0, "blocks of the KV cache are held"),
                (remains.requests > 0, "requests were taken and have not ended"),
                (remains.device_bytes > 0, "device memory is held"),
            ];
            let broken_rules = rules.into_iter().filter(|(is_broken, _)| *is_broken);
            broken.extend(broken_rules.map(|(_, rule)| format!("afterwards {rule}: {remains:?}")));
        }
        self.failures.append(&mut broken);
    }

    /// Whether its beginning and its end can be compared.
    fn is_long(&self) -> bool {
        self.seconds >= SHORT
    }

    /// Drift that says something: of a long run in which nothing changes.
    fn judged_drift(&self) -> Option<Drift> {
        let steady = self.faults.is_none() && !self.soak.switches && !self.interrupted;
        self.throughput.filter(|_| steady && self.is_long())
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, device, machine, soak, requests, .. } = self;
        writeln!(f, "bessemer {} · {} · {}", self.version, model.model, model.weight_format)?;
        writeln!(f, "{} · {} threads · {}", device.name, machine.threads, machine.system)?;
        let early = if self.interrupted { ", interrupted" } else { "" };
        writeln!(
            f,
            "{} owners · seed {} · {:.0} s{early} · {} changes of the optimisations, {} armed again",
            soak.concurrency, soak.seed, self.seconds, self.switched, self.rearmed
        )?;
        writeln!(
            f,
            "requests    {} ended: {} right, {} cancelled, {} left by their owners, {} failed{}",
            requests.ended,
            requests.right,
            requests.cancelled,
            requests.left,
            requests.all_failed(),
            list(&requests.failed)
        )?;
        let stats = &self.stats;
        writeln!(
            f,
            "steps       {}: {} failed, {} of these run again, {} preemptions, {} tokens",
            stats.steps, stats.failed_steps, stats.repeated_steps, stats.preemptions, stats.generated_tokens
        )?;
        if let Some(faults) = &self.faults {
            writeln!(
                f,
                "faults      {} in {} calls of the device{}",
                faults.all(),
                faults.calls,
                list(&faults.injected)
            )?;
        }
        for plateau in &self.memory {
            let [first, last] = [plateau.first, plateau.last].map(|bytes| bytes as f64 / 1_048_576.0);
            let judged = if self.is_long() { "" } else { " (not judged)" };
            writeln!(f, "memory      {:<12} {first:.1} → {last:.1} MiB{judged}", plateau.what)?;
        }
        if let Some(drift) = &self.throughput {
            let judged = if self.judged_drift().is_some() { "" } else { " (not judged)" };
            let Drift { first, last } = drift;
            writeln!(f, "throughput  {first:.1} → {last:.1} tok/s, {:+.1} %{judged}", drift.share() * 100.0)?;
        }
        if let Some(remains) = &self.remains {
            writeln!(
                f,
                "left over   {} buffers ({} acquired, {} released, {} held), {} KV blocks, {} requests, {} bytes",
                remains.leaked(),
                remains.pool_acquired,
                remains.pool_released,
                remains.pool_live,
                remains.kv_blocks,
                remains.requests,
                remains.device_bytes
            )?;
        }
        for violation in &requests.told {
            writeln!(f, "wrong       {violation}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED      {failure}")?;
        }
        if self.passed() { writeln!(f, "passed") } else { Ok(()) }
    }
}

/// `: submission 3, timeout 1`.
fn list(counts: &BTreeMap<&'static str, u64>) -> String {
    let all: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join(", ")) }
}
