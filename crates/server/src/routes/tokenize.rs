//! `/tokenize` and `/detokenize`, in vLLM's shapes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bessemer_text::{SpecialTokens, Specials};
use serde::Serialize;

use crate::app::App;
use crate::body::JsonBody;
use crate::generation::off_thread;
use crate::openai::error::ApiError;
use crate::openai::tokenize_request::{DetokenizeRequest, TokenizeInput, TokenizeRequest};
use crate::prompt;

/// The answer of `/tokenize`.
#[derive(Serialize)]
pub struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

/// The answer of `/detokenize`.
#[derive(Serialize)]
pub struct Detokenized {
    prompt: String,
}

/// `POST /tokenize`.
pub async fn tokenize(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody,
) -> Result<Json<Tokenized>, ApiError> {
    let request = TokenizeRequest::new(body)?;
    app.check_model(request.model.as_deref())?;
    off_thread(app, move |app| {
        let special = if request.add_special_tokens { SpecialTokens::Add } else { SpecialTokens::Skip };
        let tokens = match &request.input {
            TokenizeInput::Text(text) => prompt::text_tokens(&app.engine, "prompt", text, special)?,
            TokenizeInput::Chat(dialogue) => prompt::dialogue_tokens(&app.engine, dialogue, special)?,
        };
        let spell = |tokenizer: &bessemer_text::Tokenizer| {
            tokens.iter().map(|&id| tokenizer.id_to_token(id).unwrap_or_default()).collect()
        };
        let token_strs = app.engine.tokenizer().filter(|_| request.return_token_strs).map(spell);
        Ok(Json(Tokenized {
            count: tokens.len(),
            max_model_len: app.engine.info().context,
            tokens,
            token_strs,
        }))
    })
    .await
}

/// `POST /detokenize`.
pub async fn detokenize(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody,
) -> Result<Json<Detokenized>, ApiError> {
    let request = DetokenizeRequest::new(body)?;
    app.check_model(request.model.as_deref())?;
    off_thread(app, move |app| {
        let tokenizer = prompt::tokenizer(&app.engine, "tokens")?;
        let vocab = app.engine.info().vocab;
        if let Some(id) = request.tokens.iter().find(|&&id| id as usize >= vocab) {
            let message = format!(
                "tokens: ids must be below the vocabulary's {vocab} entries, but {id} was given. Take ids of this \
                 model's own tokenizer"
            );
            return Err(ApiError::invalid("tokens", message));
        }
        Ok(Json(Detokenized { prompt: tokenizer.decode(&request.tokens, Specials::Keep) }))
    })
    .await
}
