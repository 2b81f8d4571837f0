//! `bessemer soak`: requests for hours, each compared with what it must give, while things change and fail.

mod interrupt;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bessemer_config::byte_size;
use bessemer_selftest::soak::{Length, Progress, Soak as Run, SoakReport};
use clap::Args;

use crate::model_arguments::EngineArguments;
use crate::{output, time_span};

const AFTER_HELP: &str = "\
Examples:
  bessemer soak --duration 24h --json soak.json
  bessemer soak --requests 1000 --faults --switches --staging
  bessemer soak --model ./my-model --device vulkan --duration 30m --concurrency 16

The requests of a run are a few different ones, made from the seed: short and long prompts, greedy and drawn tokens; some
owners cancel, some go away. What each gives is computed first, alone, with every optimisation off. A run passes when

  every request ended in exactly one reply, with those tokens, or with --faults in an error of the device behind the
  right tokens up to there;
  nothing is held in the end: buffers of the memory pool, KV blocks, requests, device memory;
  in runs of at least a minute no kind of memory grew: the least of the last tenth of the time against the least of the
  first tenth after a warm-up of another tenth, 5 % and 8 MiB (resident) or 1 MiB (device) allowed;
  in such runs without --faults and --switches throughput drifted by at most 5 % between these tenths;
  and the engine served all requests once more afterwards.

--faults puts a device around the device which refuses memory, fails, damages, delays and times out calls by a seeded
schedule. On a GPU steps have at most 16 rows, because more take other kernels, whose last bits differ. The first
interrupt ends the run early and reports what there is, the second one ends at once.

Exit codes: 0 passed, 1 a rule was broken, 130 ended by a second interrupt.";

/// Rate of `--faults` without a value.
const RATE: &str = "0.01";
/// Between two lines of progress.
const TOLD: Duration = Duration::from_secs(10);

/// Runs requests for hours, and checks that every answer is right, nothing leaks and nothing slows down.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Soak {
    /// How long requests begin, such as 90s, 30m or 24h.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time_span::parse)]
    duration: Duration,
    /// End after so many requests instead.
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Requests at once.
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Different requests.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=1024))]
    distinct: u16,
    /// Tokens of the longest prompt.
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// Tokens that a request gives at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    gen_tokens: u32,
    /// Seed of requests, faults and switches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Make calls of the device fail: each kind of fault in this share of the calls that can meet it.
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = RATE,
          value_parser = rate)]
    faults: Option<f64>,
    /// Move bytes through staging even where host and device share memory, as with a card of its own.
    #[arg(long)]
    staging: bool,
    /// Change the optimisations while requests run.
    #[arg(long)]
    switches: bool,
    /// Write everything that was found to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArguments,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 0.1);
    rate.ok_or_else(|| "must be a share of the calls above 0 and at most 0.1, such as 0.01".into())
}

impl Soak {
    /// With faults the log would tell of each.
    pub fn log_level(&self) -> &'static str {
        if self.faults.is_some() { "off" } else { "warn" }
    }

    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let run = Run {
            length: self.requests.map_or(Length::Time(self.duration), Length::Requests),
            concurrency: self.concurrency.into(),
            distinct: self.distinct.into(),
            max_prompt: self.prompt_tokens as usize,
            max_tokens: self.gen_tokens as usize,
            seed: self.seed,
            fault_rate: self.faults,
            staging: self.staging,
            switches: self.switches,
            ..Run::default()
        };
        let mut options = self.engine.options(run.concurrency)?;
        options.context.get_or_insert(run.max_prompt + run.max_tokens);
        if let Some(path) = &self.json {
            // That it cannot be written should be known before the hours are over.
            write(path, "")?;
        }
        let interrupted = interrupt::listen()?;
        let device = options.open_device()?;
        let mut told = Instant::now();
        let report = run.run(device, options, &interrupted, &mut |progress| {
            if told.elapsed() >= TOLD {
                told = Instant::now();
                output::note(&line(progress));
            }
        })?;
        output::print(&report.to_string())?;
        if let Some(path) = &self.json {
            write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
        }
        verdict(&report)
    }
}

fn verdict(report: &SoakReport) -> anyhow::Result<()> {
    match report.failures.len() {
        0 => Ok(()),
        1 => bail!("a rule was broken; run it again with --seed {} to see it once more", report.soak.seed),
        rules => bail!("{rules} rules were broken; run it again with --seed {} to see it", report.soak.seed),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{}: cannot write it", path.display()))
}

fn line(progress: &Progress) -> String {
    let Progress { sample, faults, failed, violations } = progress;
    let resident = sample.resident.map_or("unknown".into(), byte_size::show);
    format!(
        "{:>6.0} s  {} requests, {failed} failed, {violations} wrong, {faults} faults, {resident} resident, {} on the device",
        sample.seconds,
        sample.requests,
        byte_size::show(sample.device)
    )
}
