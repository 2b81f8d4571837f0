//! The run: every check in its turn, each ending in an entry of the report, whatever it does.

use std::sync::Arc;
use std::time::Instant;

use bessemer_hal::{Device, DeviceError, Result};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::panic::caught;
use crate::report::{DeviceFacts, Machine};
use crate::{Check, Ending, Entry, Failure, Outcome, Report, Twin, device, kernels, models};

/// Which checks run, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selftest {
    /// Only checks whose names contain it.
    pub filter: Option<String>,
    /// Rounds of each check; each round draws other shapes and data.
    pub repeat: u32,
    /// Seed of the first round; the next ones follow it by one.
    pub seed: u64,
}

impl Default for Selftest {
    fn default() -> Self {
        Self { filter: None, repeat: 1, seed: 0 }
    }
}

/// Checks that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// In front of their names: `kernels/gather`.
    pub name: String,
    /// The checks.
    pub checks: &'static [Check],
}

impl Group {
    fn list(group: &str, lists: Vec<(&'static str, &'static [Check])>) -> impl Iterator<Item = Self> {
        lists.into_iter().map(move |(list, checks)| Self { name: format!("{group}/{list}"), checks })
    }

    /// Every check that there is: first the device itself, then the kernels on it, then whole models.
    pub fn all() -> Vec<Self> {
        let lists = [
            ("device", device::subjects()),
            ("kernels", kernels::operations()),
            ("models", models::subjects()),
        ];
        lists.into_iter().flat_map(|(group, lists)| Self::list(group, lists)).collect()
    }
}

impl Selftest {
    /// Runs the checks of `groups` on the device that `open` gives. `watch` sees the report before each check, with
    /// [`Report::running`] set, and after it.
    ///
    /// # Errors
    /// When `open` fails at first. Later failures are in the report.
    pub fn run(
        &self,
        open: &dyn Fn() -> Result<Arc<dyn Device>>,
        groups: &[Group],
        watch: &mut dyn FnMut(&Report),
    ) -> Result<Report> {
        let started = Instant::now();
        let device = open()?;
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::look(),
            device: DeviceFacts::of(device.info()),
            filter: self.filter.clone(),
            seed: self.seed,
            repeat: self.repeat,
            running: None,
            checks: Vec::new(),
            seconds: 0.0,
        };
        let mut bench = Bench { open, twin: Some(Twin::new(device)) };
        for (name, check) in self.chosen(groups) {
            report.running = Some(name.clone());
            watch(&report);
            report.checks.push(self.rounds(&mut bench, name, check));
            report.running = None;
            report.seconds = started.elapsed().as_secs_f64();
            watch(&report);
        }
        Ok(report)
    }

    /// Names and checks that pass the filter.
    pub fn chosen(&self, groups: &[Group]) -> Vec<(String, Check)> {
        let named = groups.iter().flat_map(|group| {
            group.checks.iter().map(|check| (format!("{}/{}", group.name, check.name), *check))
        });
        named
            .filter(|(name, _)| self.filter.as_ref().is_none_or(|part| name.contains(part.as_str())))
            .collect()
    }

    /// All rounds of one check, up to the first that does not pass.
    fn rounds(&self, bench: &mut Bench<'_>, name: String, check: Check) -> Entry {
        let started = Instant::now();
        let mut entry =
            Entry { name, ending: Ending::Passed, seconds: 0.0, rounds: 0, seed: self.seed, message: None };
        for round in 0..u64::from(self.repeat.max(1)) {
            entry.seed = self.seed.wrapping_add(round);
            entry.rounds += 1;
            let mut rng = SmallRng::seed_from_u64(mix(&entry.name, entry.seed));
            if let Err(failure) = bench.run(check, &mut rng) {
                let skipped = matches!(failure, Failure::Skipped(_));
                entry.ending = if skipped { Ending::Skipped } else { Ending::Failed };
                entry.message = Some(match failure {
                    Failure::Skipped(why) => why,
                    failure => failure.to_string(),
                });
                break;
            }
        }
        entry.seconds = started.elapsed().as_secs_f64();
        entry
    }
}

/// The seed of a check's own generator: a check draws the same whichever others run (FNV-1a).
fn mix(name: &str, seed: u64) -> u64 {
    let bytes = name.bytes().chain(seed.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The device under test; replaced when a check has ruined it.
struct Bench<'a> {
    open: &'a dyn Fn() -> Result<Arc<dyn Device>>,
    twin: Option<Twin>,
}

impl Bench<'_> {
    fn run(&mut self, check: Check, rng: &mut SmallRng) -> Outcome {
        let twin = match self.twin.take() {
            Some(twin) => twin,
            None => Twin::new((self.open)()?),
        };
        match caught(|| (check.run)(&twin, rng)) {
            // To drop a device that hangs would hang too. What it holds is lost until the program ends.
            Err(panic) => {
                std::mem::forget(twin);
                Err(Failure::wrong(panic))
            }
            Ok(Err(Failure::Device(error @ (DeviceError::Timeout { .. } | DeviceError::Lost(_))))) => {
                std::mem::forget(twin);
                Err(error.into())
            }
            Ok(outcome) => {
                self.twin = Some(twin);
                outcome
            }
        }
    }
}
