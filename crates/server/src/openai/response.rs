//! What responses look like, whole and in chunks.

use std::sync::Arc;

use bessemer_engine::FinishReason;
use serde::Serialize;

use super::logprobs::{ChatLogprobs, CompletionLogprobs};
use crate::app::{App, now};
use crate::id;

/// What all documents of one response begin with.
#[derive(Debug, Serialize)]
pub struct Head {
    /// Of the response; all chunks of a stream share it.
    pub id: String,
    /// The kind of document.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's shown name.
    pub model: Arc<str>,
    /// Changes when answers to the same seed may change.
    pub system_fingerprint: Arc<str>,
}

impl Head {
    /// The head of a new response.
    pub fn new(app: &App, object: &'static str, prefix: &str) -> Self {
        Self {
            id: id::unique(prefix),
            object,
            created: now(),
            model: app.model.clone(),
            system_fingerprint: app.fingerprint.clone(),
        }
    }
}

/// A whole response.
#[derive(Debug, Serialize)]
pub struct Document<Choice> {
    /// Its beginning.
    #[serde(flatten)]
    pub head: Head,
    /// One for each choice, in order.
    pub choices: Vec<Choice>,
    /// What it used.
    pub usage: TokenUsage,
}

/// One chunk of a stream.
#[derive(Debug, Serialize)]
pub struct Chunk<Choice> {
    /// Its beginning.
    #[serde(flatten)]
    pub head: Arc<Head>,
    /// The choice that goes on; none in the chunk that tells the usage.
    pub choices: Vec<Choice>,
    /// Left out where usage was not asked for, `null` before the last chunk where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<TokenUsage>>,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenUsage {
    /// Of the prompts, each counted once.
    pub prompt_tokens: usize,
    /// Of all choices.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
    /// What was special about those of the prompts.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// What was special about the tokens of prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    /// Those that the prefix cache had; of each prompt, as its first choice found them.
    pub cached_tokens: usize,
}

impl TokenUsage {
    /// The usage of a request whose prompts have `prompt` tokens.
    pub fn of_prompt(prompt: usize) -> Self {
        Self { prompt_tokens: prompt, total_tokens: prompt, ..Self::default() }
    }

    /// Adds a choice's output.
    pub fn add_output(&mut self, tokens: usize) {
        self.completion_tokens += tokens;
        self.total_tokens += tokens;
    }
}

/// A choice of a chat.
#[derive(Debug, Serialize)]
pub struct ChatChoice {
    /// Its number.
    pub index: usize,
    /// The answer.
    pub message: ChatMessage,
    /// Where asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: Finish,
}

/// The answer of a chat.
#[derive(Debug, Serialize)]
pub struct ChatMessage {
    /// Always the assistant.
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// Never: open models do not mark a refusal.
    pub refusal: Option<String>,
}

/// A piece of a choice of a chat.
#[derive(Debug, Serialize)]
pub struct ChatPiece {
    /// The choice's number.
    pub index: usize,
    /// What is new.
    pub delta: ChatDelta,
    /// Where asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended, in its last piece.
    pub finish_reason: Option<Finish>,
}

/// What is new in a piece.
#[derive(Debug, Default, Serialize)]
pub struct ChatDelta {
    /// In the first piece of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// The text that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A choice of a completion, or a piece of one.
#[derive(Debug, Serialize)]
pub struct CompletionChoice {
    /// Its number: prompt times `n`, plus the choice of that prompt.
    pub index: usize,
    /// The text, or the text that follows.
    pub text: String,
    /// Where asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended, in its last piece.
    pub finish_reason: Option<Finish>,
}

/// Why a choice ended, in OpenAI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// By an end token, a stop token or a stop string.
    Stop,
    /// By a limit or the context's end.
    Length,
}

impl Finish {
    /// The word for a reason; none for a cancelled request, which has no end that a client may take for one.
    pub fn of(reason: FinishReason) -> Option<Self> {
        match reason {
            FinishReason::Stop => Some(Self::Stop),
            FinishReason::Length => Some(Self::Length),
            FinishReason::Cancelled => None,
        }
    }

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}
