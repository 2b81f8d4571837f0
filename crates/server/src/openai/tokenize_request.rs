//! `/tokenize` and `/detokenize`: what requests may say, in vLLM's shapes.

use serde_json::Value;

use super::chat_request::Dialogue;
use super::error::ApiError;
use super::fields::{Fields, token_ids, wrong};
use super::passive::TOKENIZE;

/// A checked request to `/tokenize`.
#[derive(Debug)]
pub struct TokenizeRequest {
    /// The model asked for.
    pub model: Option<String>,
    /// What is tokenized.
    pub input: TokenizeInput,
    /// Whether the tokenizer adds its own special tokens around the text.
    pub add_special_tokens: bool,
    /// Whether the answer spells each token.
    pub return_token_strs: bool,
}

/// What is tokenized.
#[derive(Debug)]
pub enum TokenizeInput {
    /// A text.
    Text(String),
    /// Messages, through the chat template.
    Chat(Dialogue),
}

impl TokenizeRequest {
    /// Reads a body.
    pub fn new(body: Value) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body, "")?;
        let model = fields.string("model")?;
        let input = match fields.string("prompt")? {
            Some(text) => TokenizeInput::Text(text),
            None => TokenizeInput::Chat(Dialogue::take(&mut fields)?),
        };
        // A rendered template writes its own special tokens.
        let default = matches!(input, TokenizeInput::Text(_));
        let add_special_tokens = fields.boolean("add_special_tokens")?.unwrap_or(default);
        let return_token_strs = fields.boolean("return_token_strs")?.unwrap_or(false);
        fields.finish(&[TOKENIZE])?;
        Ok(Self { model, input, add_special_tokens, return_token_strs })
    }
}

/// A checked request to `/detokenize`.
#[derive(Debug)]
pub struct DetokenizeRequest {
    /// The model asked for.
    pub model: Option<String>,
    /// The tokens.
    pub tokens: Vec<u32>,
}

impl DetokenizeRequest {
    /// Reads a body.
    pub fn new(body: Value) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body, "")?;
        let model = fields.string("model")?;
        let tokens = match fields.required("tokens")? {
            Value::Array(items) => token_ids("tokens", &items)?,
            other => return Err(wrong("tokens", "a list of token ids", &other)),
        };
        fields.finish(&[])?;
        Ok(Self { model, tokens })
    }
}
