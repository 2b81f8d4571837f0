//! The plain path, each optimisation alone, and all together, on one engine that is switched between the runs.

use std::fmt::Write;

use bessemer_engine::{Engine, EngineInfo, Feature, OptimizationStats, Optimizations};
use serde::Serialize;

use super::Settings;
use super::host::Host;
use super::spread::Spread;
use crate::progress;

/// Everything that was measured, and on what.
#[derive(Debug, Serialize)]
pub struct Report {
    pub model: EngineInfo,
    pub host: Host,
    pub settings: Settings,
    pub configurations: Vec<Configuration>,
}

/// One setting of the switches.
#[derive(Debug, Serialize)]
pub struct Configuration {
    configuration: &'static str,
    throughput_tok_s: Spread,
    prefill_tok_s: Spread,
    ttft_ms: Spread,
    /// Medians against those of the plain path.
    speedup: f64,
    ttft_ratio: f64,
    /// Of decode: the device's own clock.
    gpu_busy: f64,
    /// Of decode: host time to get transient memory and to give it back.
    allocation_us_per_step: f64,
    /// That as a share of the time of steps.
    allocation_share: f64,
    /// That against the plain path; 1 where the plain path takes none.
    allocation_ratio: f64,
    /// Of decode, a step.
    per_step: PerStep,
    total_tokens: usize,
}

/// Counters of the decode runs by their steps.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct PerStep {
    steps: u64,
    device_allocations: f64,
    submissions: f64,
    host_waits: f64,
    encode_us: f64,
    busy_us: f64,
    bytes_up: f64,
    bytes_down: f64,
}

const CONFIGURATIONS: [(&str, &[Feature]); 5] = [
    ("baseline", &[]),
    ("memory_pool", &[Feature::MemoryPool]),
    ("blit_queue", &[Feature::BlitQueue]),
    ("command_ring", &[Feature::CommandBufferRing]),
    ("all_optimizations", &Feature::ALL),
];

/// What was measured of one configuration.
#[derive(Debug, Default)]
struct Samples {
    ttft: Vec<f64>,
    prefill: Vec<f64>,
    decode: Vec<f64>,
    counted: Counted,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    steps: u64,
    allocations: u64,
    submissions: u64,
    waits: u64,
    encode_ns: u64,
    allocation_ns: u64,
    step_ns: u64,
    busy_ns: u64,
    span_ns: u64,
    up: u64,
    down: u64,
}

impl Counted {
    fn add(&mut self, before: &OptimizationStats, after: &OptimizationStats) {
        let (ring, ring_before) = (&after.command_buffer_ring, &before.command_buffer_ring);
        self.steps += after.steps.steps - before.steps.steps;
        self.allocations += after.memory_pool.device_allocations - before.memory_pool.device_allocations;
        self.submissions += ring.total_submitted - ring_before.total_submitted;
        self.waits += after.steps.host_waits - before.steps.host_waits;
        self.encode_ns += after.steps.encode_ns - before.steps.encode_ns;
        self.allocation_ns += after.steps.allocation_ns - before.steps.allocation_ns;
        self.busy_ns += ring.busy_ns - ring_before.busy_ns;
        self.span_ns += ring.span_ns - ring_before.span_ns;
        self.up += after.blit_queue.bytes_up - before.blit_queue.bytes_up;
        self.down += after.blit_queue.bytes_down - before.blit_queue.bytes_down;
    }

    fn allocation_us(&self) -> f64 {
        ratio(self.allocation_ns, self.steps) / 1e3
    }

    fn per_step(&self) -> PerStep {
        let each = |total: u64| ratio(total, self.steps);
        PerStep {
            steps: self.steps,
            device_allocations: each(self.allocations),
            submissions: each(self.submissions),
            host_waits: each(self.waits),
            encode_us: each(self.encode_ns) / 1e3,
            busy_us: each(self.busy_ns) / 1e3,
            bytes_up: each(self.up),
            bytes_down: each(self.down),
        }
    }
}

/// 0 where there is nothing to share among.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Runs all configurations in turn, as often as the settings say.
pub fn run(engine: &Engine, settings: &Settings) -> anyhow::Result<Vec<Configuration>> {
    let [prefill, decode] = settings.workloads();
    let stats = || engine.optimization_stats().ok_or_else(|| anyhow::anyhow!("the engine has no device"));
    let mut all: Vec<Samples> = CONFIGURATIONS.iter().map(|_| Samples::default()).collect();
    let runs = settings.warm_up + settings.repeat;
    let bar = progress::steps(runs * CONFIGURATIONS.len(), "runs");
    for run in 0..runs {
        let seed = settings.seed.wrapping_add(run as u64);
        for ((_, features), samples) in CONFIGURATIONS.iter().zip(&mut all) {
            let plain = features.is_empty();
            engine.update_optimizations(if plain {
                Optimizations::off()
            } else {
                Optimizations::only(features)
            })?;
            // What a switch changes is made anew once: that is not what a running server pays.
            decode.run(engine, seed)?;
            prefill.run(engine, seed)?;
            let first = prefill.run(engine, seed)?;
            let (before, begun) = (stats()?, engine.stats().step_nanos);
            let rest = decode.run(engine, seed)?;
            let after = stats()?;
            if run >= settings.warm_up {
                samples.ttft.extend(first.times_to_first().map(|time| time.as_secs_f64() * 1e3));
                samples.prefill.push(first.prefill_rate());
                samples.decode.push(rest.decode_rate()?);
                samples.counted.add(&before, &after);
                samples.counted.step_ns += engine.stats().step_nanos - begun;
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut reports = Vec::with_capacity(CONFIGURATIONS.len());
    let mut plain = None;
    for ((configuration, _), samples) in CONFIGURATIONS.into_iter().zip(all) {
        let total_tokens = settings.repeat * settings.batch * settings.gen_tokens;
        let (throughput, ttft) = (Spread::of(samples.decode)?, Spread::of(samples.ttft)?);
        let allocation_us = samples.counted.allocation_us();
        let (plain_rate, plain_ttft, plain_allocation) =
            *plain.get_or_insert((throughput.median, ttft.median, allocation_us));
        let Counted { busy_ns, span_ns, allocation_ns, step_ns, .. } = samples.counted;
        reports.push(Configuration {
            configuration,
            speedup: throughput.median / plain_rate,
            ttft_ratio: ttft.median / plain_ttft,
            throughput_tok_s: throughput,
            prefill_tok_s: Spread::of(samples.prefill)?,
            ttft_ms: ttft,
            gpu_busy: ratio(busy_ns, span_ns),
            allocation_us_per_step: allocation_us,
            allocation_share: ratio(allocation_ns, step_ns),
            allocation_ratio: if plain_allocation > 0.0 { allocation_us / plain_allocation } else { 1.0 },
            per_step: samples.counted.per_step(),
            total_tokens,
        });
    }
    Ok(reports)
}

impl Report {
    /// A table.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let Self { model, host, settings, configurations } = self;
        let mut text = String::new();
        writeln!(text, "bessemer {} · {} · {}", env!("CARGO_PKG_VERSION"), model.model, model.weight_format)?;
        writeln!(text, "{} · {} workers · {}", model.device, model.workers, host.system)?;
        writeln!(
            text,
            "batch {} · decode {} at depth {} · prompt {} · median (smallest – largest) of {} repetitions, in turns",
            settings.batch, settings.gen_tokens, settings.depth, settings.prompt_tokens, settings.repeat
        )?;
        for one in configurations {
            let PerStep { device_allocations, submissions, host_waits, encode_us, busy_us, .. } =
                one.per_step;
            writeln!(
                text,
                "  {:<18} {:<28} tok/s  × {:.2}   first token {:<24} ms  × {:.2}",
                one.configuration,
                one.throughput_tok_s.to_string(),
                one.speedup,
                one.ttft_ms.to_string(),
                one.ttft_ratio
            )?;
            writeln!(
                text,
                "  {:<18} busy {:.1} %; a step: {busy_us:.0} µs on the device, {device_allocations:.1} allocations, \
                 {submissions:.1} submissions, {host_waits:.2} waits with nothing behind, {encode_us:.0} µs recording",
                "",
                one.gpu_busy * 100.0
            )?;
            writeln!(
                text,
                "  {:<18} getting memory and giving it back: {:.1} µs a step, {:.2} % of it  × {:.3}",
                "",
                one.allocation_us_per_step,
                one.allocation_share * 100.0,
                one.allocation_ratio
            )?;
        }
        Ok(text)
    }
}
