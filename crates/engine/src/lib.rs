//! Continuous batching over a paged KV cache.

mod request;

pub use request::{FinishReason, Reply, Request, Sampling, Token, Usage};

/// Placeholder until the error lands.
#[derive(Clone, Debug)]
pub struct EngineError;
