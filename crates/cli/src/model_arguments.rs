//! Which model, on which device, with how much memory: the flags that every command with a model shares.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_config::{Settings, Sources, byte_size};
use bessemer_engine::{ActivationMode, DeviceSelect, Engine, EngineOptions, KvChoice};
use bessemer_hal::{Device, OpenOptions};
use bessemer_weights::{Access, HubOptions, ModelFiles};
use clap::{Args, ValueEnum};

use crate::progress::{self, Waiting};
use crate::{environment, given};

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
    /// Seed of the weights of synth: models [default: 0].
    #[arg(long, value_name = "SEED")]
    pub synth_seed: Option<u64>,
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
    /// then the CPU [default: auto].
    #[arg(long, value_name = "DEVICE", value_parser = DeviceSelect::from_str)]
    pub device: Option<DeviceSelect>,
    /// Check every call on the device, where its API has checks: slow, for finding faults.
    #[arg(long)]
    pub validation: bool,
    /// Threads of the CPU device [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Arithmetic of the activations in products with quantised weights [default: auto].
    #[arg(long, value_enum)]
    pub activations: Option<ActivationFlag>,
    /// Number type of the KV cache; auto is f16 [default: auto].
    #[arg(long, value_enum)]
    pub kv_dtype: Option<KvFlag>,
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
    /// Rows of a step that prompts may fill [default: 512].
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_batch_tokens: Option<u32>,
    /// Whether keys and values of one request serve the next that begins alike [default: on; off for bench].
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub prefix_cache: Option<Switch>,
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
    /// Transient memory from heaps that are reserved once [default: on].
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub metal_pool: Option<Switch>,
    /// Transfers beside compute [default: on].
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub blit_queue: Option<Switch>,
    /// Submissions in flight, recorded once, one step ahead of what the host has read [default: on].
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub cmd_ring: Option<Switch>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// Spelling of the master switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MasterSwitch {
    /// As far as a self-check finds that they help.
    Auto,
    /// Unchecked.
    On,
    /// The plain path.
    Off,
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

impl ActivationFlag {
    fn mode(self) -> ActivationMode {
        match self {
            Self::Auto => ActivationMode::Auto,
            Self::F32 => ActivationMode::F32,
            Self::Int8 => ActivationMode::Int8,
        }
    }
}

impl KvFlag {
    fn choice(self) -> KvChoice {
        match self {
            Self::Auto => KvChoice::Auto,
            Self::F32 => KvChoice::F32,
            Self::F16 => KvChoice::F16,
        }
    }
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
            seed: self.synth_seed.unwrap_or(0),
            revision: self.revision.clone(),
            progress: progress::downloads(),
            hub: hub.map(|hub| HubOptions { access: Access::Offline, ..hub }),
        };
        Ok(ModelFiles::open(self.name(), &options)?)
    }
}

impl EngineArguments {
    /// As the engine takes them. `sequences` run at once where the user does not say.
    ///
    /// Of the environment, the variables count that begin with `METAL_`; the others set up a server.
    pub fn options(&self, sequences: usize) -> anyhow::Result<EngineOptions> {
        let mut environment = environment::settings()?;
        environment.retain(|(name, _)| name.starts_with("METAL_"));
        let sources = Sources { file: None, environment, arguments: given::engine(self) };
        let max_sequences = self.settings.max_sequences.map_or(sequences, usize::from);
        Ok(EngineOptions { max_sequences, ..engine_options(sources.resolve()?.settings())? })
    }

    /// Loads the model for `sequences` at once.
    pub fn load(&self, sequences: usize) -> anyhow::Result<Loaded> {
        load(self.options(sequences)?)
    }
}

/// What a configuration means for the engine.
pub fn engine_options(settings: &Settings) -> anyhow::Result<EngineOptions> {
    let Settings { model, engine, server, optimizations, .. } = settings;
    let (activations, kv_type) = if engine.exact {
        (ActivationMode::F32, KvChoice::F32)
    } else {
        (flag::<ActivationFlag>(&engine.activations)?.mode(), flag::<KvFlag>(&engine.kv_dtype)?.choice())
    };
    Ok(EngineOptions {
        model: model.model.clone(),
        revision: model.revision.clone(),
        offline: model.offline,
        synth_seed: model.synth_seed,
        progress: progress::downloads(),
        device: engine.device,
        validation: engine.validation,
        threads: engine.threads.map(usize::from),
        activations,
        kv_type,
        max_sequences: usize::from(engine.max_sequences),
        max_batch_tokens: engine.max_batch_tokens as usize,
        max_queue: usize::from(server.max_queue),
        context: engine.context.map(|tokens| tokens as usize),
        kv_memory: engine.kv_memory,
        prefix_cache: engine.prefix_cache,
        optimizations: optimizations.clone(),
        ..EngineOptions::default()
    })
}

/// What a name of the configuration is as a flag's value; both have the same names.
fn flag<F: ValueEnum>(name: &str) -> anyhow::Result<F> {
    F::from_str(name, false).map_err(anyhow::Error::msg)
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
        Ok(bessemer_hal::open(self.device.unwrap_or_default(), &options)?)
    }

    /// Number type of the KV cache.
    pub fn kv_type(&self) -> KvChoice {
        if self.exact { KvChoice::F32 } else { self.kv_dtype.unwrap_or_default().choice() }
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
    use bessemer_config::{Kind, keys};

    #[test]
    fn names_of_the_configuration_are_those_of_the_flags() {
        let names = |path: &str| keys().iter().find(|key| key.path == path).map(|key| key.kind.clone());
        let Some(Kind::Name(activations)) = names("activations") else { panic!("activations are names") };
        let Some(Kind::Name(types)) = names("kv_dtype") else { panic!("types are names") };
        assert!(activations.iter().all(|name| flag::<ActivationFlag>(name).is_ok()));
        assert!(types.iter().all(|name| flag::<KvFlag>(name).is_ok()));
        assert_eq!(activations.len(), ActivationFlag::value_variants().len());
        assert_eq!(types.len(), KvFlag::value_variants().len());
    }
}
