//! `bessemer bench --by-kernel`: where the time of a step goes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bessemer_engine::{EngineInfo, EngineOptions, KernelTime, Profile};
use serde::Serialize;

use super::measure::Workload;
use crate::model_arguments::{Loaded, load};
use crate::output;

/// Time on the device by kernel, for a prompt and for decoding.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    model: EngineInfo,
    phases: Vec<Phase>,
}

#[derive(Debug, Serialize)]
struct Phase {
    name: String,
    steps: u64,
    kernels: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    kernel: &'static str,
    launches_per_step: f64,
    us_per_launch: f64,
    ms_per_step: f64,
}

/// Runs a prompt of `prompt` tokens and then `generate` single-token steps.
pub fn run(mut options: EngineOptions, prompt: usize, generate: usize, json: bool) -> anyhow::Result<()> {
    let profile = Arc::new(Profile::default());
    options.profile = Some(profile.clone());
    let Loaded { engine, .. } = load(options)?;
    let prefill = Workload { prompt, shared: 0, generate: 1, batch: 1 };
    let decode = Workload { prompt: 1, shared: 0, generate, batch: 1 };
    // Pipelines are built at their first launch.
    prefill.run(&engine, 0)?;
    decode.run(&engine, 0)?;
    let mut phases = Vec::new();
    for (name, workload) in
        [(format!("prefill, {prompt} tokens"), prefill), (format!("decode, {generate} tokens"), decode)]
    {
        profile.take();
        let before = engine.stats().steps;
        workload.run(&engine, 1)?;
        let steps = engine.stats().steps - before;
        phases.push(Phase { name, steps, kernels: rows(profile.take(), steps) });
    }
    let report = Report { version: env!("CARGO_PKG_VERSION"), model: engine.info().clone(), phases };
    if json { output::print_json(&report) } else { output::print(&report.text()?) }
}

/// The slowest first.
fn rows(times: BTreeMap<&'static str, KernelTime>, steps: u64) -> Vec<Row> {
    let steps = steps.max(1) as f64;
    let mut rows: Vec<Row> = times
        .into_iter()
        .map(|(kernel, KernelTime { launches, nanos })| Row {
            kernel,
            launches_per_step: launches as f64 / steps,
            us_per_launch: nanos as f64 / 1e3 / launches.max(1) as f64,
            ms_per_step: nanos as f64 / 1e6 / steps,
        })
        .collect();
    rows.sort_by(|a, b| b.ms_per_step.total_cmp(&a.ms_per_step));
    rows
}

impl Report {
    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "bessemer {} · {} · {}", self.version, self.model.model, self.model.device)?;
        for phase in &self.phases {
            let total: f64 = phase.kernels.iter().map(|row| row.ms_per_step).sum();
            writeln!(text, "{}: {} steps, {total:.3} ms of kernels a step", phase.name, phase.steps)?;
            for row in &phase.kernels {
                writeln!(
                    text,
                    "  {:<36} {:>8.1} launches × {:>9.2} µs = {:>9.3} ms {:>5.1} %",
                    row.kernel,
                    row.launches_per_step,
                    row.us_per_launch,
                    row.ms_per_step,
                    100.0 * row.ms_per_step / total
                )?;
            }
        }
        Ok(text)
    }
}
