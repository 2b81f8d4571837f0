//! `bessemer selftest`: whether this machine's device computes what it should.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use bessemer_hal::{DeviceSelect, OpenOptions};
use bessemer_selftest::{Group, Report, Selftest as Run};
use clap::Args;

use crate::output;

const AFTER_HELP: &str = "\
Examples:
  bessemer selftest
  bessemer selftest --device cpu --filter device/
  bessemer selftest --repeat 20 --seed 7 --json report.json

Checked are the device itself (memory, copies, order, queues, refusals), every kernel against its form for the CPU, on
random shapes and data, and the models inside this program against what others compute with them. The same seed draws
the same shapes and data; after a failure the report says how to repeat it alone. Checks that a device cannot run say
why, and fail nothing. To report a fault, attach the file of --json: it is written while the checks run, so it is there
even if the program or the machine stops.";

/// Checks that a device computes what it should, and says what does not.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Selftest {
    /// Device to check: auto, cpu, vulkan, vulkan:N or metal.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = DeviceSelect::from_str)]
    device: DeviceSelect,
    /// Write everything that was found to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only checks whose names contain this, such as kernels/linear.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Rounds of each check, with other shapes and data in each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seed of the first round.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
}

impl Selftest {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let run = Run { filter: self.filter, repeat: self.repeat, seed: self.seed };
        let groups = Group::all();
        let names = run.chosen(&groups);
        let Some(width) = names.iter().map(|(name, _)| name.len()).max() else {
            let filter = run.filter.unwrap_or_default();
            bail!("--filter {filter:?}: no check has this in its name; leave it out to see all names");
        };
        let open = || bessemer_hal::open(self.device, &OpenOptions::default());
        let mut told = Ok(());
        let report = run.run(&open, &groups, &mut |report| {
            if told.is_ok() {
                told = tell(report, width).and_then(|()| save(self.json.as_deref(), report));
            }
        });
        told?;
        let report = report?;
        output::print(&report.summary())?;
        match report.passed() {
            true => Ok(()),
            false => Err(anyhow!("{} of {} checks failed", report.failures().count(), report.checks.len())),
        }
    }
}

/// What is new: the name of a check before it runs, so that it stands there if nothing follows, and its end after it.
fn tell(report: &Report, width: usize) -> anyhow::Result<()> {
    match (&report.running, report.checks.last()) {
        (Some(name), None) => output::print(&format!("{}\n{name:<width$}  ", report.header())),
        (Some(name), _) => output::print(&format!("{name:<width$}  ")),
        (None, Some(entry)) => output::print_line(&entry.to_string()),
        (None, None) => Ok(()),
    }
}

fn save(path: Option<&Path>, report: &Report) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(path, text).with_context(|| format!("{}: cannot write it", path.display()))
}
