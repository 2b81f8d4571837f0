//! What an engine is and what it is doing, for reports.

use serde::{Deserialize, Serialize};

/// What was loaded; fixed for the engine's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Name of the model, as it was asked for.
    pub model: String,
    /// Its architecture, as `config.json` spells it.
    pub architecture: String,
    /// Number of parameters, as far as the tensors' shapes tell.
    pub parameters: u64,
    /// Bytes of the weight files.
    pub weight_bytes: u64,
    /// Tokens that one request may have, prompt and output together: the least of the model's context, the cap and
    /// what the KV cache holds.
    pub context: usize,
    /// Tokens that the model was made for.
    pub model_context: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Storage of the weights.
    pub weight_format: String,
    /// Activations in products with the weights: `int8` before quantised ones, otherwise `f32`.
    pub activations: String,
    /// Number type of the KV cache.
    pub kv_type: String,
    /// Tokens that end the output.
    pub end_tokens: Vec<u32>,
    /// Whether the model has a tokenizer.
    pub tokenizer: bool,
    /// Whether the model has a chat template.
    pub chat_template: bool,
    /// Name of the device.
    pub device: String,
    /// Instruction sets or features of the device in use.
    pub device_features: Vec<String>,
    /// Threads or compute units of the device.
    pub workers: u32,
    /// Tokens of one KV block.
    pub block_size: usize,
    /// KV blocks in all.
    pub kv_blocks: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Rows of one step that prefill may fill up to.
    pub max_batch_tokens: usize,
    /// Requests that may wait.
    pub max_queue: usize,
}

/// What an engine is doing and has done since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStats {
    /// Sequences running now.
    pub running: usize,
    /// Requests waiting now, preempted ones included.
    pub waiting: usize,
    /// KV blocks in all; always `kv_blocks_free + kv_blocks_cached + kv_blocks_used`.
    pub kv_blocks_total: usize,
    /// KV blocks with nothing in them.
    pub kv_blocks_free: usize,
    /// KV blocks that the prefix cache keeps for later requests, until something else needs them.
    pub kv_blocks_cached: usize,
    /// KV blocks that running sequences hold.
    pub kv_blocks_used: usize,
    /// Requests accepted.
    pub requests: u64,
    /// Requests that ended by a stop rule or by length.
    pub finished: u64,
    /// Requests that their owner cancelled.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens of the prompts of admitted requests; recomputed ones count once.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens of prompts that were looked up in the prefix cache, those of a preempted request once.
    pub prefix_cache_queries: u64,
    /// Of these, tokens that were there.
    pub prefix_cache_hits: u64,
    /// Times a running sequence lost its blocks to an older one.
    pub preemptions: u64,
    /// Steps submitted.
    pub steps: u64,
    /// Steps that failed.
    pub failed_steps: u64,
    /// Failed steps that were run again without what had failed, so that no request noticed.
    pub repeated_steps: u64,
    /// Rows that went through the network, recomputed ones included.
    pub rows: u64,
    /// Nanoseconds spent in steps.
    pub step_nanos: u64,
}
