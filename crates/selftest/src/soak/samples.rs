//! Memory and progress over the time of a soak, in bounded space.

use std::time::Duration;

use bessemer_runtime::{MemoryBudgetGauges, Owner};
use serde::Serialize;

/// Samples kept at most. When there are more, every second one goes, and from then on half as many are taken.
const MOST: usize = 2000;

/// The state at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Since the start of the run.
    pub seconds: f64,
    /// Requests that have ended.
    pub requests: u64,
    /// Tokens that came.
    pub tokens: u64,
    /// Bytes of the process in memory; unknown on systems without `/proc`.
    pub resident: Option<u64>,
    /// Bytes of device memory held.
    pub device: u64,
    /// Of these, by the memory pool.
    pub pool: u64,
    /// Of these, by buffers that are out.
    pub buffers: u64,
    /// Of the device's, by owner.
    pub owners: MemoryBudgetGauges,
}

/// Samples at equal distances.
#[derive(Debug)]
pub(super) struct Samples {
    kept: Vec<Sample>,
    every: Duration,
    due: Duration,
}

/// A quantity at the beginning and at the end: the least of the first tenth after the warm-up, and of the last tenth. The
/// least, because what comes and goes does not matter, and what stays shows there.
#[derive(Clone, Debug, Serialize)]
pub struct Plateau {
    /// Of what.
    pub what: String,
    /// Bytes in the first tenth.
    pub first: u64,
    /// Bytes in the last.
    pub last: u64,
    /// Bytes that would be too much.
    pub limit: u64,
}

/// Tokens a second at the beginning and at the end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Drift {
    /// In the first tenth after the warm-up.
    pub first: f64,
    /// In the last.
    pub last: f64,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self { kept: Vec::with_capacity(MOST), every: Duration::from_millis(10), due: Duration::ZERO }
    }

    /// Whether it is time for another one.
    pub(super) fn is_due(&self, elapsed: Duration) -> bool {
        elapsed >= self.due
    }

    pub(super) fn push(&mut self, elapsed: Duration, sample: Sample) {
        if self.kept.len() >= MOST {
            let mut at = 0;
            self.kept.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.every *= 2;
        }
        self.due = elapsed + self.every;
        self.kept.push(sample);
    }

    /// The first and the last tenth of what is left after a first tenth of the time, the warm-up; `None` when a tenth has
    /// fewer than three samples.
    fn tenths(&self) -> Option<[&[Sample]; 2]> {
        let end = self.kept.last()?.seconds;
        let at = |share: f64| self.kept.partition_point(|sample| sample.seconds < end * share);
        let first = self.kept.get(at(0.1)..at(0.19))?;
        let last = self.kept.get(at(0.91)..)?;
        (first.len() >= 3 && last.len() >= 3).then_some([first, last])
    }

    /// Every kind of memory; empty for a run that was too short. Of the memory pool the buffers that are out: its heaps come
    /// and go with the switches and with faults, and are bounded by the settings.
    pub(super) fn plateaus(&self) -> Vec<Plateau> {
        /// What may come for reasons of its own: fragments, tables of the system.
        const RESIDENT: u64 = 8 << 20;
        const DEVICE: u64 = 1 << 20;
        let Some(tenths) = self.tenths() else { return Vec::new() };
        let plateau = |what: &str, of: &dyn Fn(&Sample) -> Option<u64>, slack: u64| {
            let [first, last] = tenths.map(|tenth| tenth.iter().filter_map(of).min());
            let (first, last) = (first?, last?);
            Some(Plateau { what: what.to_owned(), first, last, limit: first + first / 20 + slack })
        };
        let mut all = vec![
            plateau("resident", &|sample| sample.resident, RESIDENT),
            plateau("device", &|sample| Some(sample.device.saturating_sub(sample.pool)), DEVICE),
            plateau("buffers", &|sample| Some(sample.buffers), DEVICE),
        ];
        // Blocks go to and fro between the KV cache and the prefix cache in it: together they are what was allocated.
        let blocks: &[Owner] = &[Owner::KvCache, Owner::PrefixCache];
        for (what, owners) in [("weights", &[Owner::Weights][..]), ("KV cache", blocks)] {
            let bytes = |sample: &Sample| owners.iter().map(|owner| sample.owners.of(*owner)).sum::<u64>();
            all.push(plateau(what, &|sample| Some(bytes(sample)), DEVICE));
        }
        all.into_iter().flatten().collect()
    }

    /// Throughput; `None` for a run that was too short.
    pub(super) fn drift(&self) -> Option<Drift> {
        let [first, last] = self.tenths()?.map(|tenth| {
            let (begin, end) = (tenth.first()?, tenth.last()?);
            let seconds = end.seconds - begin.seconds;
            (seconds > 0.0).then(|| (end.tokens - begin.tokens) as f64 / seconds)
        });
        Some(Drift { first: first?, last: last? })
    }
}

impl Plateau {
    /// Whether it did not grow.
    pub fn holds(&self) -> bool {
        self.last <= self.limit
    }
}

impl Drift {
    /// How far the end is from the beginning, as a share of that.
    pub fn share(&self) -> f64 {
        if self.first > 0.0 { self.last / self.first - 1.0 } else { 0.0 }
    }
}

/// Bytes of this process in memory, where the system tells.
pub(super) fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(page).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample each 10 ms for `seconds`.
    fn run(seconds: u64, of: impl Fn(f64) -> Sample) -> Samples {
        let mut samples = Samples::new();
        for at in 0..seconds * 100 {
            let elapsed = Duration::from_millis(at * 10);
            if samples.is_due(elapsed) {
                samples.push(elapsed, of(elapsed.as_secs_f64()));
            }
        }
        samples
    }

    fn sample(seconds: f64, resident: u64, tokens: f64) -> Sample {
        let owners = MemoryBudgetGauges { kv_cache: resident, ..MemoryBudgetGauges::default() };
        let (tokens, pool) = (tokens as u64, resident);
        let device = 500 + pool;
        Sample { seconds, requests: 0, tokens, resident: Some(resident), device, pool, buffers: 0, owners }
    }

    #[test]
    fn space_is_bounded_and_the_ends_stay() {
        let samples = run(400, |seconds| sample(seconds, 1, seconds));
        assert!(samples.kept.len() <= MOST && samples.kept.len() > MOST / 4, "{}", samples.kept.len());
        assert!(samples.kept.windows(2).all(|pair| pair[0].seconds < pair[1].seconds));
        assert_eq!(samples.kept[0].seconds, 0.0);
        assert!(samples.kept.last().unwrap().seconds > 399.0);
    }

    #[test]
    fn growth_is_seen_and_what_comes_and_goes_is_not() {
        const MB: f64 = 1048576.0;
        let find = |samples: &Samples, what: &str| {
            samples.plateaus().into_iter().find(|plateau| plateau.what == what).unwrap().holds()
        };
        // 1 MiB a second on 100.
        let leak = run(100, |s| sample(s, ((100.0 + s) * MB) as u64, s));
        assert!(!find(&leak, "resident") && !find(&leak, "KV cache") && find(&leak, "device"));
        let waves = run(100, |s| sample(s, ((100.0 + 90.0 * (s * 7.0).sin()) * MB) as u64, s));
        assert!(find(&waves, "resident") && find(&waves, "KV cache"));
        // What is loaded at the beginning is warm-up.
        let loads = run(100, |s| sample(s, ((100.0 + 20.0 * s.min(9.0)) * MB) as u64, s));
        assert!(find(&loads, "resident"));
    }

    #[test]
    fn drift_is_between_the_ends() {
        let drift = run(100, |s| sample(s, 1, s * 1000.0 - s * s)).drift().unwrap();
        assert!((drift.first - 971.0).abs() < 2.0 && (drift.last - 809.0).abs() < 2.0, "{drift:?}");
        assert!((drift.share() + 0.167).abs() < 0.005, "{}", drift.share());
        assert!(run(100, |s| sample(s, 1, s * 5000.0)).drift().unwrap().share().abs() < 0.001);
        let mut short = Samples::new();
        short.push(Duration::ZERO, sample(0.0, 1, 0.0));
        assert!(short.drift().is_none() && short.plateaus().is_empty());
    }

    #[test]
    fn this_process_is_in_memory() {
        if cfg!(target_os = "linux") {
            assert!(resident().unwrap() > 1 << 20);
        }
    }
}
