//! Which model, on which device, with how much memory: the flags that every command with a model shares.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_engine::{
    ActivationMode, DeviceSelect, Engine, EngineOptions, Feature, KvChoice, Master, Optimizations,
};
use bessemer_hal::{Device, OpenOptions};
use bessemer_weights::{Access, HubOptions, ModelFiles};
use clap::{Args, ValueEnum};

use crate::progress::{self, Waiting};
use crate::{byte_size, environment};

/// The model and where it comes from.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArguments {
    /// Embedded model, folder, Hugging Face id, or synth:SHAPE[:FORMAT] [default: default].
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Branch, tag or commit of a Hugging Face id.
    #[arg(long)]
    pub revision: Option<String>,
    /// Never download: use what is on this machine.
    #[arg(long)]
    pub offline: bool,
    /// Seed of the weights of synth: models.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub synth_seed: u64,
}

/// The model and how it runs.
#[derive(Clone, Debug, Args)]
pub struct EngineArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten, next_help_heading = "Engine")]
    pub settings: EngineSettings,
}

/// How a model runs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineSettings {
    /// Which device runs the model: auto, cpu, vulkan, vulkan:N or metal; auto takes Metal, then a GPU through Vulkan,
    /// then the CPU.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = DeviceSelect::from_str)]
    pub device: DeviceSelect,
    /// Check every call on the device, where its API has checks: slow, for finding faults.
    #[arg(long)]
    pub validation: bool,
    /// Threads of the CPU device [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Arithmetic of the activations in products with quantised weights.
    #[arg(long, value_enum, default_value_t)]
    pub activations: ActivationFlag,
    /// Number type of the KV cache; auto is f16.
    #[arg(long, value_enum, default_value_t)]
    pub kv_dtype: KvFlag,
    /// As the reference computes: f32 activations and an f32 KV cache.
    #[arg(long, conflicts_with_all = ["activations", "kv_dtype"])]
    pub exact: bool,
    /// Tokens that one request may have, prompt and output together, if the model allows more.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub context: Option<u32>,
    /// Memory for the KV cache, such as 8GiB [default: --max-sequences times min(context, 4096) tokens, at least one whole context, at most half of the free memory].
    #[arg(long, value_name = "BYTES", value_parser = byte_size::parse)]
    pub kv_memory: Option<u64>,
    /// Sequences that run at once [default: 16 for serve, else what the command needs].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_sequences: Option<u16>,
    /// Rows of a step that prompts may fill.
    #[arg(long, value_name = "ROWS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_batch_tokens: u32,
    #[command(flatten)]
    pub optimizations: OptimizationArguments,
}

/// Which optimisations are on.
#[derive(Clone, Copy, Debug, Args)]
pub struct OptimizationArguments {
    /// Memory pool, transfer queue and command ring: those that are on, none, or auto: those that are on, once a short
    /// self-check of this model on this machine has found the same tokens and no loss of throughput [default:
    /// METAL_OPTIMIZATIONS_ENABLED, else auto].
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub metal_opts: Option<MasterSwitch>,
    /// Transient memory from heaps that are reserved once.
    #[arg(long, value_enum, value_name = "SWITCH", default_value_t)]
    pub metal_pool: Switch,
    /// Transfers beside compute.
    #[arg(long, value_enum, value_name = "SWITCH", default_value_t)]
    pub blit_queue: Switch,
    /// Submissions in flight, recorded once, one step ahead of what the host has read.
    #[arg(long, value_enum, value_name = "SWITCH", default_value_t)]
    pub cmd_ring: Switch,
}

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// Spelling of [`Master`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MasterSwitch {
    /// As far as a self-check finds that they help.
    Auto,
    /// Unchecked.
    On,
    /// The plain path.
    Off,
}

impl OptimizationArguments {
    /// As the engine takes them.
    pub fn settings(self) -> anyhow::Result<Optimizations> {
        let on = |switch| switch == Switch::On;
        let mut settings = Optimizations { enabled: self.master()?, ..Optimizations::default() };
        *settings.switch(Feature::MemoryPool) = on(self.metal_pool);
        *settings.switch(Feature::BlitQueue) = on(self.blit_queue);
        *settings.switch(Feature::CommandBufferRing) = on(self.cmd_ring);
        Ok(settings)
    }

    fn master(self) -> anyhow::Result<Master> {
        master(self.metal_opts, environment::metal_optimizations)
    }
}

/// What was typed for this run goes before the environment, which is not looked at then, and that before what the
/// program does by itself.
fn master(
    typed: Option<MasterSwitch>,
    environment: impl FnOnce() -> anyhow::Result<Option<Master>>,
) -> anyhow::Result<Master> {
    match typed {
        Some(MasterSwitch::Auto) => Ok(Master::Auto),
        Some(MasterSwitch::On) => Ok(Master::On),
        Some(MasterSwitch::Off) => Ok(Master::Off),
        None => environment().map(Option::unwrap_or_default),
    }
}

/// Spelling of [`ActivationMode`].
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ActivationFlag {
    /// What the device does best within the accuracy bar.
    #[default]
    Auto,
    /// As the reference computes.
    F32,
    /// Quantised per group.
    Int8,
}

/// Spelling of [`KvChoice`].
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum KvFlag {
    /// Half precision.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Half precision.
    F16,
}

/// An engine and how long it took to load.
pub struct Loaded {
    pub engine: Engine,
    pub load_time: Duration,
}

impl ModelArguments {
    /// The model's name.
    pub fn name(&self) -> &str {
        self.model.as_deref().unwrap_or("default")
    }

    /// Opens the model's files without loading its weights.
    pub fn open(&self) -> anyhow::Result<ModelFiles> {
        let hub = self.offline.then(HubOptions::from_env).transpose()?;
        let options = bessemer_weights::OpenOptions {
            seed: self.synth_seed,
            revision: self.revision.clone(),
            progress: progress::downloads(),
            hub: hub.map(|hub| HubOptions { access: Access::Offline, ..hub }),
        };
        Ok(ModelFiles::open(self.name(), &options)?)
    }
}

impl EngineArguments {
    /// As the engine takes them. `sequences` run at once where the user does not say.
    pub fn options(&self, sequences: usize) -> anyhow::Result<EngineOptions> {
        let settings = &self.settings;
        Ok(EngineOptions {
            model: self.model.name().to_owned(),
            revision: self.model.revision.clone(),
            offline: self.model.offline,
            synth_seed: self.model.synth_seed,
            progress: progress::downloads(),
            device: settings.device,
            validation: settings.validation,
            threads: settings.threads.map(usize::from),
            activations: settings.activations(),
            kv_type: settings.kv_type(),
            max_sequences: settings.max_sequences.map_or(sequences, usize::from),
            max_batch_tokens: settings.max_batch_tokens as usize,
            context: settings.context.map(|tokens| tokens as usize),
            kv_memory: settings.kv_memory,
            optimizations: settings.optimizations.settings()?,
            ..EngineOptions::default()
        })
    }

    /// Loads the model for `sequences` at once.
    pub fn load(&self, sequences: usize) -> anyhow::Result<Loaded> {
        load(self.options(sequences)?)
    }
}

/// Loads a model and takes the time.
pub fn load(options: EngineOptions) -> anyhow::Result<Loaded> {
    let _waiting = Waiting::new(format!("loading {}", options.model));
    let start = Instant::now();
    let engine = Engine::load(options)?;
    Ok(Loaded { engine, load_time: start.elapsed() })
}

impl EngineSettings {
    /// The device by itself, for commands that load no model.
    pub fn open_device(&self) -> anyhow::Result<Arc<dyn Device>> {
        let options = OpenOptions {
            threads: self.threads.map(usize::from),
            validation: self.validation,
            ..OpenOptions::default()
        };
        Ok(bessemer_hal::open(self.device, &options)?)
    }

    fn activations(&self) -> ActivationMode {
        match self.activations {
            _ if self.exact => ActivationMode::F32,
            ActivationFlag::Auto => ActivationMode::Auto,
            ActivationFlag::F32 => ActivationMode::F32,
            ActivationFlag::Int8 => ActivationMode::Int8,
        }
    }

    /// Number type of the KV cache.
    pub fn kv_type(&self) -> KvChoice {
        match self.kv_dtype {
            _ if self.exact => KvChoice::F32,
            KvFlag::Auto => KvChoice::Auto,
            KvFlag::F32 => KvChoice::F32,
            KvFlag::F16 => KvChoice::F16,
        }
    }

    /// Bytes of one element of the KV cache.
    pub fn kv_element(&self) -> usize {
        match self.kv_type() {
            KvChoice::F32 => 4,
            KvChoice::Auto | KvChoice::F16 => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_of_this_run_goes_before_the_environment_and_that_before_the_default() {
        let read = |typed, found: Option<Master>| master(typed, || Ok(found)).unwrap();
        assert_eq!(read(None, None), Master::Auto);
        for found in [Master::Off, Master::On, Master::Auto] {
            assert_eq!(read(None, Some(found)), found);
            assert_eq!(read(Some(MasterSwitch::Off), Some(found)), Master::Off);
            assert_eq!(read(Some(MasterSwitch::On), Some(found)), Master::On);
            assert_eq!(read(Some(MasterSwitch::Auto), Some(found)), Master::Auto);
        }
        let wrong = || Err(anyhow::anyhow!("not a switch"));
        assert!(master(None, wrong).is_err());
        assert_eq!(master(Some(MasterSwitch::On), wrong).unwrap(), Master::On);
    }
}
