//! Continuous batching over a paged KV cache: requests in, streams of tokens or text out.
//!
//! A request's way: [`Engine::submit`] checks it and hands it to the engine's thread (`worker`); the `scheduler` decides
//! at every step which rows of which sequences go through the network and gives them blocks of the KV cache
//! (`block_pool`), those with the keys and values of its first tokens if there are such (`prefix_cache`); `batch` lays them out; the network runs them and draws tokens; `stop` judges these; [`ReplyStream`]
//! carries them to the owner, and [`TextStream`] makes text of them there.
//!
//! - **Sequences join and leave at every step.** A step mixes decodes with chunks of prompts.
//! - **Output does not depend on company.** Kernels are batch invariant, a draw depends on the request's own logits,
//!   history, seed and index only. So the same request gives the same tokens alone, in a batch, in any chunking, and
//!   after preemption.
//! - **Every accepted request ends exactly once**, in [`Reply::Finished`] or [`Reply::Failed`], whatever happens to the
//!   step, the device or the thread.
//! - **Nobody waits for anybody.** Submitting never blocks, the engine never waits for a reader, nothing polls.
//!
//! ```
//! use bessemer_engine::{Engine, EngineOptions, Prompt, Sampling, TextReply, TextRequest};
//! use futures::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let engine = Engine::load(EngineOptions::default())?;
//! let mut stream = engine.generate_text(TextRequest {
//!     prompt: Prompt::Text("Once upon a time".into()),
//!     sampling: Sampling::greedy(),
//!     max_tokens: Some(8),
//!     ..TextRequest::default()
//! })?;
//! let mut story = String::new();
//! while let Some(reply) = stream.next().await {
//!     match reply {
//!         TextReply::Delta { text, .. } => story += &text,
//!         TextReply::Finished { usage, .. } => assert_eq!(usage.completion_tokens, 8),
//!         TextReply::Failed(error) => return Err(error),
//!     }
//! }
//! assert!(story.starts_with(" there"));
//! # Ok(()) }).unwrap();
//! ```
//!
//! Known gap: requests with the same prompt that arrive together compute it each for itself; only what a step has
//! completed can be shared.

mod batch;
mod block_pool;
mod census;
mod command;
mod draw_lists;
mod engine;
mod error;
mod forward;
mod gate;
mod generation;
mod info;
mod load;
mod network;
mod options;
mod prefix_cache;
mod reply_stream;
mod request;
mod scheduler;
mod self_check;
mod sequence;
mod serving;
mod stop;
mod stop_strings;
mod text_request;
mod text_stream;
mod validate;
mod worker;

#[cfg(test)]
mod tests;

pub use bessemer_hal::{DeviceError, DeviceSelect};
pub use bessemer_model::{ActivationMode, KvPrecision as KvChoice};
pub use bessemer_runtime::{
    CommandRingConfig, FallbackLogLevel, FallbackReason, Feature, FeatureSettings, FeatureStatus,
    HistogramSnapshot, KernelTime, Master, MemoryPoolConfig, OptimizationStats, OptimizationTimes,
    Optimizations, Profile, TransferQueueConfig, Verdict,
};
pub use bessemer_text::Specials;
pub use bessemer_weights::Progress;
pub use engine::Engine;
pub use error::{EngineError, Result};
pub use generation::GenerationDefaults;
pub use info::{EngineInfo, EngineStats};
pub use options::EngineOptions;
pub use reply_stream::ReplyStream;
pub use request::{FinishReason, Reply, Request, Sampling, Token, Usage};
pub use serving::{Outcome, ServingStatistics, Timeline};
pub use text_request::{ChatPrompt, Prompt, TextRequest};
pub use text_stream::{TextReply, TextStream};
