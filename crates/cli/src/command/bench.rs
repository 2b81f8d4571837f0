//! `bessemer bench`: how fast this machine runs a model, told with its spread.

mod by_kernel;
mod by_optimization;
mod host;
mod kernels;
mod measure;
mod spread;

use std::fmt::Write;

use bessemer_config::byte_size;
use bessemer_engine::{EngineInfo, EngineOptions, Master};
use bessemer_model::ModelConfig;
use clap::Args;
use serde::Serialize;

use crate::model_arguments::{EngineArguments, Loaded, Switch, load};
use crate::{output, progress};
use host::Host;
use measure::Workload;
use spread::Spread;

const AFTER_HELP: &str = "\
Examples:
  bessemer bench
  bessemer bench --model ./my-model --prompt-tokens 2048 --gen-tokens 256 --repeat 10 --json
  bessemer bench --model synth:qwen3-0.6b --batch 8
  bessemer bench --kernels --device vulkan --filter lm_head

What is measured, after one run that does not count, --repeat times:
  ttft_ms        time to the first token of a request with --prompt-tokens tokens that asks for one; of a batch, the
                 times of all its requests, which are sent at once
  prefill_tok_s  prompt tokens by the time until every request of the batch has its first token
  decode_tok_s   after a prompt of --depth tokens: tokens by time, from the first token to the last of --gen-tokens;
                 of a batch, all sequences' tokens by time while all of them generate
Prompts are random tokens from a fixed seed, another one in every repetition; tokens are drawn greedily, and end tokens
do not end anything. The prefix cache is off: --prefix-cache on --shared-tokens N tells what it brings to prompts that
all begin with the same N tokens. Each figure is the median with the smallest and the largest value, in --json with all samples.
peak_memory_mb (MiB) is the largest resident memory of the process, mapped weight files included.

With --kernels: the time of a launch with the barrier behind it, from the device's own clock, many launches in one
submission; the bytes and operations that the shape needs at least; and their rate as a share of what plain reading and
plain multiplying reach on this device in the same run.

With --by-optimization: the configurations take turns in every repetition, so that a machine whose speed drifts favours
none. throughput_tok_s is decode_tok_s above. speedup is against the plain path, of medians. gpu_busy is the share of the
time from the first of the device's submissions to the last in which it ran them, by its own clock. allocation_us_per_step
is the host's time for getting transient memory and giving it back, measured around each buffer; allocation_share is that
by the time of a step, allocation_ratio by the plain path's.

With --by-kernel: one prompt and --gen-tokens steps of decoding, every launch in a command buffer of its own, timed by
the device's clock; the sum is longer than a step takes in one piece.";

/// Measures prefill and decode speed, time to the first token, and memory.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Bench {
    /// Tokens of the prompt, for prefill.
    #[arg(short, long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// Tokens to generate, for decode.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
    gen_tokens: u32,
    /// Tokens of the prompt before decode.
    #[arg(short, long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,
    /// Tokens that all prompts begin with, the same in every repetition.
    #[arg(long, value_name = "N", default_value_t = 0)]
    shared_tokens: u32,
    /// Sequences at once.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Repetitions that count.
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Seed of the prompts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    instead: Instead,
    /// With --kernels: only those whose model, name, shape and rows ("1 rows") contain TEXT, or each of several that "+"
    /// separates: "30b+ 1 rows".
    #[arg(long, value_name = "TEXT", requires = "kernels")]
    filter: Option<String>,
    /// With --kernels: weights that launches take turns on, so that caches do not serve them.
    #[arg(long, value_name = "BYTES", requires = "kernels", default_value = "512MiB", value_parser = byte_size::parse)]
    rotate: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// What is measured instead of speed as a whole.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Instead {
    /// Tell where the time of a step goes, kernel by kernel, instead.
    #[arg(long, conflicts_with_all = ["depth", "batch", "repeat", "seed"])]
    by_kernel: bool,
    /// Compare the plain path, each optimisation alone, and all together, in turns on one engine, instead.
    #[arg(long)]
    by_optimization: bool,
    /// Measure every kernel by itself instead, on the shapes of Qwen2.5-7B and Qwen3-30B-A3B.
    #[arg(long, conflicts_with_all = ["prompt_tokens", "gen_tokens", "depth", "batch", "seed", "model"])]
    kernels: bool,
}

/// Everything that was measured, and on what.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    model: EngineInfo,
    host: Host,
    settings: Settings,
    load_s: f64,
    prefill_tok_s: Spread,
    decode_tok_s: Spread,
    ttft_ms: Spread,
    peak_memory_mb: Option<f64>,
}

/// How it was measured.
#[derive(Debug, Serialize)]
struct Settings {
    prompt_tokens: usize,
    gen_tokens: usize,
    depth: usize,
    shared_tokens: usize,
    batch: usize,
    repeat: usize,
    warm_up: usize,
    seed: u64,
}

impl Bench {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        if self.instead.kernels {
            let settings =
                kernels::Settings { repeat: self.repeat.into(), rotate: self.rotate, filter: self.filter };
            return kernels::run(self.engine.settings.open_device()?, settings, self.json);
        }
        let settings = Settings {
            prompt_tokens: self.prompt_tokens as usize,
            gen_tokens: self.gen_tokens as usize,
            depth: self.depth as usize,
            shared_tokens: self.shared_tokens as usize,
            batch: self.batch.into(),
            repeat: self.repeat.into(),
            warm_up: 1,
            seed: self.seed,
        };
        let options = self.options(&settings)?;
        if self.instead.by_kernel {
            return by_kernel::run(options, settings.prompt_tokens, settings.gen_tokens, self.json);
        }
        let Loaded { engine, load_time } = load(options)?;
        if self.instead.by_optimization {
            let model = engine.info().clone();
            let report = by_optimization::run(&engine, &settings)?;
            let report =
                by_optimization::Report { model, host: Host::look(), settings, configurations: report };
            return if self.json { output::print_json(&report) } else { output::print(&report.text()?) };
        }
        let [prefill, decode] = settings.workloads();
        let (mut ttft, mut prefill_rate, mut decode_rate) = (Vec::new(), Vec::new(), Vec::new());
        let bar = progress::steps(settings.warm_up + settings.repeat, "runs");
        for run in 0..settings.warm_up + settings.repeat {
            let seed = settings.seed.wrapping_add(run as u64);
            let first = prefill.run(&engine, seed)?;
            let rest = decode.run(&engine, seed)?;
            if run >= settings.warm_up {
                ttft.extend(first.times_to_first().map(|time| time.as_secs_f64() * 1e3));
                prefill_rate.push(first.prefill_rate());
                decode_rate.push(rest.decode_rate()?);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            model: engine.info().clone(),
            host: Host::look(),
            settings,
            load_s: load_time.as_secs_f64(),
            prefill_tok_s: Spread::of(prefill_rate)?,
            decode_tok_s: Spread::of(decode_rate)?,
            ttft_ms: Spread::of(ttft)?,
            peak_memory_mb: host::peak_memory_mib(),
        };
        if self.json { output::print_json(&report) } else { output::print(&report.text()?) }
    }

    /// The engine's options: context and KV cache for the whole batch and no more, unless the user says otherwise.
    fn options(&self, settings: &Settings) -> anyhow::Result<EngineOptions> {
        let mut options = self.engine.options(settings.batch)?;
        // Configurations take turns on the same prompts.
        options.prefix_cache = self.engine.settings.prefix_cache == Some(Switch::On);
        // A check between two runs would change what is measured.
        if options.optimizations.enabled == Master::Auto {
            options.optimizations.enabled = Master::On;
        }
        let tokens = settings.prompt_tokens.max(settings.depth + settings.gen_tokens) + 1;
        options.context.get_or_insert(tokens);
        if options.kv_memory.is_none() {
            let config = ModelConfig::from_hf(&self.engine.model.open()?.config)?;
            let per_token = config.kv_bytes_per_token(self.engine.settings.kv_element());
            let tokens = tokens.next_multiple_of(options.block_size) * settings.batch;
            options.kv_memory = Some(per_token as u64 * tokens as u64);
        }
        Ok(options)
    }
}

impl Settings {
    /// What prefill is measured with, and decode.
    fn workloads(&self) -> [Workload; 2] {
        let Self { shared_tokens: shared, batch, .. } = *self;
        [
            Workload { prompt: self.prompt_tokens, shared, generate: 1, batch },
            Workload { prompt: self.depth, shared, generate: self.gen_tokens, batch },
        ]
    }
}

impl Report {
    fn text(&self) -> Result<String, std::fmt::Error> {
        let (model, host, settings) = (&self.model, &self.host, &self.settings);
        let mut text = String::new();
        writeln!(text, "bessemer {} · {} · {}", self.version, model.model, model.weight_format)?;
        writeln!(text, "{} · {} workers · {}", model.device, model.workers, host.system)?;
        writeln!(
            text,
            "activations {} · KV {} · batch {}",
            model.activations, model.kv_type, settings.batch
        )?;
        writeln!(
            text,
            "median (smallest – largest) of {} repetitions after one that does not count",
            settings.repeat
        )?;
        let prefill = format!("prefill, {} tokens", settings.prompt_tokens);
        let decode = format!("decode, {} tokens at depth {}", settings.gen_tokens, settings.depth);
        writeln!(text, "  {prefill:<36} {} tok/s", self.prefill_tok_s)?;
        writeln!(text, "  {:<36} {} ms", "time to first token", self.ttft_ms)?;
        writeln!(text, "  {decode:<36} {} tok/s", self.decode_tok_s)?;
        writeln!(text, "  {:<36} {:.2} s", "load", self.load_s)?;
        if let Some(peak) = self.peak_memory_mb {
            writeln!(text, "  {:<36} {peak:.0} MiB", "peak memory")?;
        }
        Ok(text)
    }
}
