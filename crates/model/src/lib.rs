//! Networks, written once over layers.
//!
//! A [`Model`] is a configuration, weights on a device, and the recipe of a step: [`Model::encode`] records the kernels
//! of a batch into a recorder and never waits. Who submits, when, and in which command buffer is not its business, so
//! memory pools, transfer queues and command rings slide in under it.
//!
//! Design choices:
//!
//! - One *network definition*. An architecture is a short file that says which parts a layer has; the parts are shared.
//! - *Quantisation belongs to the linear layer*. A layer looks at its matrix and says which activations it takes.
//! - *config.json is read in one place* ([`ModelConfig::from_hf`]); everything after it works with checked numbers.
//! - *Every tensor is accounted for*: one that is missing, misshapen or left over is an error that names it.

mod architectures;
mod batch;
mod config;
mod error;
mod kv_cache;
mod layers;
mod loader;
mod options;
mod precision;

pub use batch::{Batch, BatchInput, BatchLayout, NO_SLOT};
pub use config::{Architecture, ModelConfig, MoeConfig, RopeConfig};
pub use error::{ModelError, Result};
pub use kv_cache::KvCache;
pub use options::{ActivationMode, KvPrecision, ModelOptions};

use std::sync::{Arc, Mutex, PoisonError};

use bessemer_hal::Slice;
use bessemer_runtime::{HeapStack, Owner, Recorder, Reservation, Runtime};
use bessemer_weights::{ModelFiles, Weights};

use layers::decoder::Decoder;
use loader::Loader;

/// A network with its weights on a device.
pub struct Model {
    config: ModelConfig,
    options: ModelOptions,
    runtime: Arc<Runtime>,
    decoder: Decoder,
    weight_bytes: u64,
    /// What the weights count against the budget.
    _share: Vec<Reservation>,
}

impl Model {
    /// Reads the configuration, repacks the weights onto the runtime's device.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a configuration that cannot be, [`ModelError::Weights`] for a tensor that is missing,
    /// misshapen, truncated or left over, [`ModelError::Device`] when memory runs out.
    pub fn load(files: &ModelFiles, runtime: &Arc<Runtime>, options: &ModelOptions) -> Result<Self> {
        let config = ModelConfig::from_hf(&files.config)?;
        let weights = Weights::new(files)?;
        let memory = Mutex::new(HeapStack::with_budget(
            runtime.device().clone(),
            runtime.budget().clone(),
            Owner::Weights,
        ));
        let loader = Loader { weights: &weights, runtime, config: &config, options: *options, memory };
        let decoder = architectures::load(&loader)?;
        weights.finish(&|name| ignored(&config, name))?;
        let weight_bytes = loader.bytes();
        let memory = loader.memory.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _share = memory.into_reservations();
        Ok(Self { config, options: *options, runtime: runtime.clone(), decoder, weight_bytes, _share })
    }

    /// What it is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it runs.
    pub fn options(&self) -> &ModelOptions {
        &self.options
    }

    /// Device memory of the weights in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Bytes of keys and values per token.
    pub fn kv_bytes_per_token(&self) -> usize {
        self.config.kv_bytes_per_token(self.options.kv.bytes())
    }

    /// A cache of `blocks` blocks of `block_size` tokens, a multiple of 16.
    ///
    /// # Errors
    /// [`ModelError::Cache`] for another `block_size`, [`ModelError::Device`] when the device has no memory for it.
    pub fn create_kv_cache(&self, blocks: usize, block_size: usize) -> Result<KvCache> {
        KvCache::new(&self.runtime, &self.config, self.options.kv, blocks, block_size)
    }

    /// Records a step: the batch's keys and values go to the cache, and the logits of the wanted rows come out as f32
    /// `[wanted, vocab_size]` in memory of the step.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when batch, cache and network do not fit, [`ModelError::Device`] when memory runs out.
    pub fn encode(&self, batch: &Batch, kv: &KvCache, recorder: &mut Recorder<'_>) -> Result<Slice> {
        self.decoder.encode(recorder, &self.config, batch, kv)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("config", &self.config)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Tensors that inference does not need: a copy of the tied output matrix, and tables that old checkpoints carry and
/// that follow from the configuration.
fn ignored(config: &ModelConfig, name: &str) -> bool {
    (config.tied && name.starts_with("lm_head.")) || name.ends_with(".rotary_emb.inv_freq")
}
