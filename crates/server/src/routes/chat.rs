//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bessemer_engine::Token;
use bessemer_text::SpecialTokens;

use crate::app::App;
use crate::body::JsonBody;
use crate::generation::{Finished, Generation, collect, off_thread};
use crate::openai::chat_request::ChatRequest;
use crate::openai::error::ApiError;
use crate::openai::logprobs::ChatLogprobs;
use crate::openai::response::{
    ChatChoice, ChatDelta, ChatMessage, ChatPiece, Chunk, Document, Finish, Head, TokenUsage,
};
use crate::openai::settings::{Delivery, StreamUsage};
use crate::traces::Traced;
use crate::{prompt, sse};

const ASSISTANT: &str = "assistant";

/// Answers a dialogue.
pub async fn chat_completions(
    State(app): State<Arc<App>>,
    Traced(trace): Traced,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = ChatRequest::new(body, app.engine.generation_defaults())?;
    app.check_model(request.model.as_deref())?;
    let ChatRequest { dialogue, settings, max_tokens, logprobs, .. } = request;
    let (choices, delivery) = (settings.n, settings.delivery);
    let generation = off_thread(app.clone(), move |app| {
        let tokens = prompt::dialogue_tokens(&app.engine, &dialogue, SpecialTokens::Skip)?;
        prompt::check_length(&app.engine, "messages", &tokens, 1)?;
        Generation::submit(app, vec![tokens], &settings, max_tokens, trace)
    })
    .await?;
    let wants_logprobs = logprobs.is_some();
    match delivery {
        Delivery::Whole => {
            let (finished, usage) = collect(generation, choices).await?;
            let choice = |(index, finished)| choice(&app, index, finished, wants_logprobs);
            let choices = finished.into_iter().enumerate().map(choice).collect();
            let head = Head::new(&app, "chat.completion", "chatcmpl");
            Ok(Json(Document { head, choices, usage }).into_response())
        }
        Delivery::Stream(usage) => {
            let head = Arc::new(Head::new(&app, "chat.completion.chunk", "chatcmpl"));
            Ok(sse::respond(generation, ChatChunks { app, head, choices, wants_logprobs, usage }))
        }
    }
}

fn choice(app: &App, index: usize, finished: Finished, wants_logprobs: bool) -> ChatChoice {
    let logprobs = wants_logprobs.then(|| {
        let mut logprobs = ChatLogprobs::default();
        logprobs.extend(app.engine.tokenizer(), &finished.tokens);
        logprobs
    });
    let message = ChatMessage { role: ASSISTANT, content: finished.text, refusal: None };
    ChatChoice { index, message, logprobs, finish_reason: finished.reason }
}

struct ChatChunks {
    app: Arc<App>,
    head: Arc<Head>,
    choices: usize,
    wants_logprobs: bool,
    usage: StreamUsage,
}

impl ChatChunks {
    fn chunk(&self, choices: Vec<ChatPiece>) -> Chunk<ChatPiece> {
        let usage = (self.usage == StreamUsage::Told).then_some(None);
        Chunk { head: self.head.clone(), choices, usage }
    }
}

impl sse::Chunks for ChatChunks {
    type Choice = ChatPiece;

    fn opening(&mut self) -> Vec<Chunk<ChatPiece>> {
        let first = |index| {
            let delta = ChatDelta { role: Some(ASSISTANT), content: Some(String::new()) };
            self.chunk(vec![ChatPiece { index, delta, logprobs: None, finish_reason: None }])
        };
        (0..self.choices).map(first).collect()
    }

    fn piece(&mut self, choice: usize, text: String, tokens: &[Token]) -> Option<Chunk<ChatPiece>> {
        let tells_tokens = self.wants_logprobs && !tokens.is_empty();
        if text.is_empty() && !tells_tokens {
            return None;
        }
        let logprobs = tells_tokens.then(|| {
            let mut logprobs = ChatLogprobs::default();
            logprobs.extend(self.app.engine.tokenizer(), tokens);
            logprobs
        });
        let delta = ChatDelta { role: None, content: Some(text) };
        Some(self.chunk(vec![ChatPiece { index: choice, delta, logprobs, finish_reason: None }]))
    }

    fn end(&mut self, choice: usize, reason: Finish) -> Chunk<ChatPiece> {
        let delta = ChatDelta::default();
        self.chunk(vec![ChatPiece { index: choice, delta, logprobs: None, finish_reason: Some(reason) }])
    }

    fn usage(&mut self, usage: TokenUsage) -> Option<Chunk<ChatPiece>> {
        let told = self.usage == StreamUsage::Told;
        told.then(|| Chunk { head: self.head.clone(), choices: Vec::new(), usage: Some(Some(usage)) })
    }
}
