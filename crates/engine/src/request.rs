//! What goes into the engine and what comes out: token-level requests and their replies.

use serde::{Deserialize, Serialize};

/// How the next token is drawn from the logits. The defaults draw from the plain distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the `k` most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most probable tokens that sums to `p`.
    pub top_p: f32,
    /// Drop tokens less probable than `min_p` times the most probable one.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from logits of tokens in the output.
    pub presence_penalty: f32,
    /// Subtracted per occurrence from logits of tokens in the output.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the draw reproducible, whatever else is in the batch; drawn at random when absent.
    pub seed: Option<u64>,
    /// Report this many most probable tokens with each token (0: only the chosen one's log-probability is known).
    pub top_logprobs: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
            top_logprobs: 0,
        }
    }
}

impl Sampling {
    /// Always the most probable token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }
}

/// A request at the level of tokens.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The prompt; at least one token.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most so many tokens; absent: until the context is full.
    pub max_tokens: Option<usize>,
    /// Tokens that end the output (not part of it), beside the model's own end tokens.
    pub stop_tokens: Vec<u32>,
    /// Go on through the model's own end tokens.
    pub ignore_end: bool,
    /// Requests share what the prefix cache holds only with those of the same salt; absent: with all that have none.
    /// At most 1024 bytes.
    pub cache_salt: Option<String>,
}

/// Why an output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token, a stop token or a stop string.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// Cancelled by its owner.
    Cancelled,
}

/// One token of the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability under the model, before any sampling setting.
    pub logprob: f32,
    /// The most probable tokens with theirs, best first; as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// What a request used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the output.
    pub completion_tokens: usize,
    /// Tokens of the prompt whose keys and values the prefix cache had.
    pub cached_tokens: usize,
}

/// What a request's stream yields: tokens, then exactly one end.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The next token.
    Token(Token),
    /// The last item: how it ended.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it used.
        usage: Usage,
    },
    /// The last item: it could not be finished.
    Failed(crate::EngineError),
}
