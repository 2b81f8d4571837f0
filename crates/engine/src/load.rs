//! From options to a running engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bessemer_hal::Device;
use bessemer_model::{ActivationMode, KvPrecision, Model, ModelOptions};
use bessemer_runtime::Runtime;
use bessemer_text::{ChatTemplate, Tokenizer};
use bessemer_weights::{Access, HubOptions, ModelFiles, OpenOptions};

use crate::block_pool::BlockPool;
use crate::census::Census;
use crate::engine::Parts;
use crate::network::{Network, model_error};
use crate::scheduler::{Limits, Scheduler};
use crate::self_check::{LOADING_WAITS, SelfCheck, Verdicts};
use crate::validate::Bounds;
use crate::{Engine, EngineError, EngineInfo, EngineOptions, GenerationDefaults, Result};

/// Tokens of each running sequence that the KV cache has room for when nothing is said.
const DEFAULT_KV_TOKENS: usize = 4096;

impl Engine {
    /// Opens, checks and loads a model, and starts the thread that runs it. Blocks until it is ready, and for a second
    /// at most longer while a self-check is under way (`docs/metal-optimizations.md`).
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for an option out of range, [`EngineError::Weights`] for files that are not there or
    /// damaged, [`EngineError::Text`] for an unusable tokenizer or chat template, [`EngineError::Model`] for a network
    /// that does not fit its files, [`EngineError::Device`] when memory runs out.
    pub fn load(options: EngineOptions) -> Result<Self> {
        Self::load_with(options, EngineOptions::open_device)
    }

    /// [`Engine::load`] on a device that is open already: `options.device`, `threads` and `validation` count for nothing.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_on(device: Arc<dyn Device>, options: EngineOptions) -> Result<Self> {
        Self::load_with(options, |_| Ok(device))
    }

    fn load_with(
        options: EngineOptions,
        device: impl FnOnce(&EngineOptions) -> Result<Arc<dyn Device>>,
    ) -> Result<Self> {
        options.validate()?;
        let files = open(&options)?;
        let tokenizer = files.tokenizer_json.as_deref().map(Tokenizer::from_bytes).transpose();
        let tokenizer = tokenizer.map_err(|error| text_error(&files, &error))?;
        let chat_template =
            ChatTemplate::of_model(files.chat_template.as_deref(), files.tokenizer_config.as_ref())
                .map_err(|error| text_error(&files, &error))?;

        let device = device(&options)?;
        let runtime = Runtime::with(device.clone(), options.optimizations.clone(), options.profile.clone())?;
        let model_options = ModelOptions { activations: options.activations, kv: options.kv_type };
        let error = |error| model_error(&files.name, error);
        let model = Model::load(&files, &runtime, &model_options).map_err(error)?;
        let config = model.config();

        let cap = options.context.map_or(config.context, |cap| cap.min(config.context));
        let budget = device.info().limits.memory_budget.saturating_sub(device.allocated());
        let blocks = kv_blocks(&options, model.kv_bytes_per_token(), cap, budget)?;
        let kv = model.create_kv_cache(blocks, options.block_size).map_err(error)?;
        let kv_tokens = blocks * options.block_size;
        let context = cap.min(kv_tokens);
        if context < cap {
            tracing::warn!(
                context,
                cap,
                "the KV cache is smaller than the context; raise kv_memory for longer requests"
            );
        }

        let defaults = GenerationDefaults::from_files(
            &files.config,
            files.generation_config.as_ref(),
            config.vocab_size,
        );
        let census = Census::of(&files);
        let info = EngineInfo {
            model: files.name.clone(),
            architecture: config.architecture.name().into(),
            parameters: census.parameters,
            weight_bytes: files.bytes_on_disk,
            context,
            model_context: config.context,
            vocab: config.vocab_size,
            hidden: config.hidden_size,
            layers: config.layers,
            weight_format: census.weight_format,
            activations: activations(options.activations, census.quantised).into(),
            kv_type: kv_name(options.kv_type).into(),
            end_tokens: defaults.end_tokens.clone(),
            tokenizer: tokenizer.is_some(),
            chat_template: chat_template.is_some(),
            device: device.info().name.clone(),
            device_features: device.info().features.clone(),
            workers: device.info().limits.workers,
            block_size: options.block_size,
            kv_blocks: blocks,
            kv_bytes: kv.bytes(),
            max_sequences: options.max_sequences,
            max_batch_tokens: options.max_batch_tokens,
            max_queue: options.max_queue,
        };
        let bounds = Bounds { vocab: config.vocab_size, context, kv_tokens };
        let limits =
            Limits { max_sequences: options.max_sequences, max_batch_tokens: options.max_batch_tokens };
        let pool = BlockPool::new(blocks, options.block_size);
        let pool = if options.prefix_cache { pool.caching() } else { pool };
        let scheduler = Scheduler::new(limits, pool);
        let network = Network::new(runtime.clone(), model, kv, files.name.clone(), options.max_sequences)?;
        // Weights and KV cache have their memory now: heaps come from what is left.
        runtime.warm_up();
        let (loading, checked) = sync_channel(0);
        let check = options.profile.is_none().then(|| {
            let folder = cache_folder(&options).map(|folder| folder.join("self-checks"));
            let verdicts = Verdicts::new(folder, device.info(), &info, &files.config);
            SelfCheck::new(runtime.clone(), verdicts, (info.vocab, context), loading)
        });
        let runtime = Some(runtime);
        let parts = Parts { info, defaults, bounds, tokenizer, chat_template, runtime };
        let engine = Self::start(parts, Box::new(network), scheduler, check)?;
        // Nothing is sent: it ends when the check drops the other end, or is too slow to be waited for.
        checked.recv_timeout(LOADING_WAITS).ok();
        Ok(engine)
    }
}

fn open(options: &EngineOptions) -> Result<ModelFiles> {
    let hub = options
        .offline
        .then(|| Ok::<_, EngineError>(HubOptions { access: Access::Offline, ..HubOptions::from_env()? }))
        .transpose()?;
    let open = OpenOptions {
        seed: options.synth_seed,
        revision: options.revision.clone(),
        progress: options.progress.clone(),
        hub,
    };
    Ok(ModelFiles::open(&options.model, &open)?)
}

impl EngineOptions {
    /// Opens the device that these options name, as [`Engine::load`] does; to be wrapped, and given to [`Engine::load_on`].
    ///
    /// # Errors
    /// [`EngineError::Device`] when it is not there or cannot be used.
    pub fn open_device(&self) -> Result<Arc<dyn Device>> {
        let open = bessemer_hal::OpenOptions {
            threads: self.threads,
            validation: self.validation,
            pipeline_cache: cache_folder(self).map(|folder| folder.join("pipelines")),
            ..bessemer_hal::OpenOptions::default()
        };
        Ok(bessemer_hal::open(self.device, &open)?)
    }
}

/// Where things are kept between runs, if this user has a place for such files.
fn cache_folder(options: &EngineOptions) -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = || absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    options.cache_folder.clone().or_else(|| Some(caches()?.join("bessemer")))
}

/// How many blocks the KV cache gets; `budget` is what the device has left, in bytes.
fn kv_blocks(options: &EngineOptions, bytes_per_token: usize, context: usize, budget: u64) -> Result<usize> {
    let block_bytes = (bytes_per_token as u64).saturating_mul(options.block_size as u64).max(1);
    let bytes = options.kv_memory.unwrap_or_else(|| {
        let tokens = options.max_sequences.saturating_mul(context.min(DEFAULT_KV_TOKENS)).max(context);
        let blocks = tokens.div_ceil(options.block_size) as u64;
        blocks.saturating_mul(block_bytes).min(budget / 2)
    });
    // Rows of the cache are numbered in 32 bits.
    let most = u32::MAX as usize / options.block_size;
    let blocks = usize::try_from(bytes / block_bytes).unwrap_or(usize::MAX).min(most);
    if blocks * options.block_size < 2 {
        let rule = format!("must hold one block of {} tokens, {block_bytes} bytes", options.block_size);
        return Err(EngineError::invalid(
            "kv_memory",
            rule,
            bytes,
            "Give more memory or choose smaller blocks",
        ));
    }
    Ok(blocks)
}

/// What the activations before quantised weights are; everything else is f32.
fn activations(mode: ActivationMode, quantised: bool) -> &'static str {
    match mode {
        ActivationMode::Auto | ActivationMode::Int8 if quantised => "int8",
        _ => "f32",
    }
}

fn kv_name(kv: KvPrecision) -> &'static str {
    match kv {
        KvPrecision::F32 => "f32",
        KvPrecision::Auto | KvPrecision::F16 => "f16",
    }
}

fn text_error(files: &ModelFiles, error: &dyn std::error::Error) -> EngineError {
    EngineError::Text { name: files.name.clone(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(kv_memory: Option<u64>, context: usize, budget: u64) -> Result<usize> {
        let options =
            EngineOptions { kv_memory, max_sequences: 4, block_size: 16, ..EngineOptions::default() };
        kv_blocks(&options, 10, context, budget)
    }

    #[test]
    fn every_sequence_gets_its_share() {
        assert_eq!(blocks(None, 1000, u64::MAX).unwrap(), 4 * 1000 / 16);
        assert_eq!(blocks(None, 100_000, u64::MAX).unwrap(), 100_000 / 16);
        assert_eq!(blocks(None, 10_000, u64::MAX).unwrap(), 4 * 4096 / 16);
    }

    #[test]
    fn memory_bounds_it() {
        assert_eq!(blocks(None, 1000, 160 * 2 * 7).unwrap(), 7);
        assert_eq!(blocks(Some(160 * 3 + 159), 1000, 0).unwrap(), 3);
        let message = blocks(Some(159), 1000, 0).unwrap_err().to_string();
        assert!(message.starts_with("kv_memory") && message.contains("160 bytes"), "{message}");
    }
}
