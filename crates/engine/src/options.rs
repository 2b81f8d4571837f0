//! How an engine is set up: the model, the device, and how much it may do at once.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bessemer_hal::DeviceSelect;
use bessemer_model::{ActivationMode, KvPrecision};
use bessemer_runtime::{Optimizations, Profile};
use bessemer_weights::Progress;

use crate::{EngineError, Result};

/// Everything that is fixed when an engine is loaded.
#[derive(Clone)]
pub struct EngineOptions {
    /// `default`, a folder, a Hugging Face id, or `synth:SHAPE[:FORMAT]`.
    pub model: String,
    /// Branch, tag or commit of a Hugging Face id.
    pub revision: Option<String>,
    /// Never download: use what is on this machine.
    pub offline: bool,
    /// Told about downloads.
    pub progress: Option<Arc<dyn Progress>>,
    /// Seed of the weights of `synth:` models.
    pub synth_seed: u64,
    /// Which device runs the model.
    pub device: DeviceSelect,
    /// Checks every call on the device against its rules, where its API can: slow, for finding faults.
    pub validation: bool,
    /// Threads of the CPU device; absent: one per core.
    pub threads: Option<usize>,
    /// Arithmetic of the activations.
    pub activations: ActivationMode,
    /// Number type of the KV cache.
    pub kv_type: KvPrecision,
    /// Sequences that run at once, 1..=256.
    pub max_sequences: usize,
    /// Rows of one step that prefill may fill up to; a step never has more than `max(max_batch_tokens,
    /// max_sequences)` rows.
    pub max_batch_tokens: usize,
    /// Requests that may wait beside the `max_sequences` running ones; beyond: [`EngineError::Busy`].
    pub max_queue: usize,
    /// Tokens of one KV block.
    pub block_size: usize,
    /// Whether keys and values of one request serve the next that begins alike (`docs/prefix-cache.md`).
    pub prefix_cache: bool,
    /// Cap of the model's context in tokens.
    pub context: Option<usize>,
    /// Bytes for the KV cache; absent: enough for `max_sequences` × min(context, 4096), at most half of the memory
    /// that the device has left.
    pub kv_memory: Option<u64>,
    /// Memory pool, transfer queue and command ring: which are on, and how they work. By default they are on where a
    /// short self-check has found that they help; see [`bessemer_runtime::Master::Auto`].
    pub optimizations: Optimizations,
    /// Folder for what is kept between runs: compiled pipelines, and the verdicts of self-checks. Absent: `bessemer`
    /// in the user's cache folder.
    pub cache_folder: Option<PathBuf>,
    /// Told what every kernel takes. Steps are then cut into a command buffer for each launch, and take longer, so
    /// that no self-check is made.
    pub profile: Option<Arc<Profile>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            model: "default".into(),
            revision: None,
            offline: false,
            progress: None,
            synth_seed: 0,
            device: DeviceSelect::Auto,
            validation: false,
            threads: None,
            activations: ActivationMode::Auto,
            kv_type: KvPrecision::Auto,
            max_sequences: 16,
            max_batch_tokens: 512,
            max_queue: 256,
            block_size: 16,
            prefix_cache: true,
            context: None,
            kv_memory: None,
            optimizations: Optimizations::default(),
            cache_folder: None,
            profile: None,
        }
    }
}

impl fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineOptions")
            .field("model", &self.model)
            .field("revision", &self.revision)
            .field("offline", &self.offline)
            .field("synth_seed", &self.synth_seed)
            .field("device", &self.device)
            .field("validation", &self.validation)
            .field("threads", &self.threads)
            .field("activations", &self.activations)
            .field("kv_type", &self.kv_type)
            .field("max_sequences", &self.max_sequences)
            .field("max_batch_tokens", &self.max_batch_tokens)
            .field("max_queue", &self.max_queue)
            .field("block_size", &self.block_size)
            .field("prefix_cache", &self.prefix_cache)
            .field("context", &self.context)
            .field("kv_memory", &self.kv_memory)
            .field("optimizations", &self.optimizations)
            .field("cache_folder", &self.cache_folder)
            .finish_non_exhaustive()
    }
}

impl EngineOptions {
    /// Checks the numbers against their ranges.
    pub(crate) fn validate(&self) -> Result<()> {
        range("max_sequences", self.max_sequences, 1, 256)?;
        range("max_batch_tokens", self.max_batch_tokens, 1, 65_536)?;
        range("max_queue", self.max_queue, 0, 1 << 20)?;
        range("block_size", self.block_size, 16, 1024)?;
        if !self.block_size.is_multiple_of(16) {
            return Err(EngineError::invalid(
                "block_size",
                "must be a multiple of 16, the keys that are stored together",
                self.block_size,
                "Give 16 or 32",
            ));
        }
        self.optimizations.validate().map_err(bessemer_hal::DeviceError::from)?;
        if let Some(context) = self.context {
            range("context", context, 2, u32::MAX as usize)?;
        }
        if let Some(threads) = self.threads {
            range("threads", threads, 1, 1024)?;
        }
        Ok(())
    }
}

fn range(field: &'static str, given: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&given) {
        return Ok(());
    }
    let rule = format!("must be from {low} to {high}");
    Err(EngineError::invalid(field, rule, given, "Choose a value in that range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_option() {
        let options = EngineOptions { max_sequences: 300, ..EngineOptions::default() };
        let message = options.validate().unwrap_err().to_string();
        assert_eq!(
            message,
            "max_sequences: must be from 1 to 256, but it is 300. Choose a value in that range"
        );
        assert!(EngineOptions::default().validate().is_ok());
    }
}
