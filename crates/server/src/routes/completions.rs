//! `POST /v1/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bessemer_engine::Token;

use crate::app::App;
use crate::body::JsonBody;
use crate::echo::Echo;
use crate::generation::{Finished, Generation, collect, off_thread};
use crate::openai::completion_request::CompletionRequest;
use crate::openai::error::ApiError;
use crate::openai::logprobs::CompletionLogprobs;
use crate::openai::response::{Chunk, CompletionChoice, Document, Finish, Head, TokenUsage};
use crate::openai::settings::{Delivery, StreamUsage};
use crate::traces::{RequestTrace, Traced};
use crate::{prompt, sse};

/// Continues prompts.
pub async fn completions(
    State(app): State<Arc<App>>,
    Traced(trace): Traced,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = CompletionRequest::new(body, app.engine.generation_defaults())?;
    app.check_model(request.model.as_deref())?;
    let delivery = request.settings.delivery;
    let (generation, choices) = off_thread(app.clone(), move |app| start(app, &request, trace)).await?;
    let head = Head::new(&app, "text_completion", "cmpl");
    match delivery {
        Delivery::Whole => {
            let (finished, usage) = collect(generation, choices.len()).await?;
            let whole = |(choice, finished): (OpenChoice, Finished)| choice.whole(&app, finished);
            let choices = choices.into_iter().zip(finished).map(whole).collect();
            Ok(Json(Document { head, choices, usage }).into_response())
        }
        Delivery::Stream(usage) => {
            Ok(sse::respond(generation, CompletionChunks { app, head: Arc::new(head), choices, usage }))
        }
    }
}

/// Tokenizes and submits all prompts; may block.
fn start(
    app: &App,
    request: &CompletionRequest,
    trace: Option<Arc<RequestTrace>>,
) -> Result<(Generation, Vec<OpenChoice>), ApiError> {
    let prompts = request
        .prompts
        .iter()
        .map(|input| prompt::input_tokens(&app.engine, input))
        .collect::<Result<Vec<_>, _>>()?;
    let room = request.max_tokens.min(1);
    prompts.iter().try_for_each(|tokens| prompt::check_length(&app.engine, "prompt", tokens, room))?;
    let mut echoes = Vec::new();
    if request.echo {
        for (input, tokens) in request.prompts.iter().zip(&prompts) {
            echoes.push(Arc::new(Echo::new(app, input, tokens, request.logprobs)?));
        }
    }
    let n = request.settings.n;
    let open = |index: usize| OpenChoice {
        index,
        echo: echoes.get(index / n).cloned(),
        offset: request.logprobs.map(|_| 0),
    };
    let choices = (0..prompts.len() * n).map(open).collect();
    let generation = Generation::submit(app, prompts, &request.settings, Some(request.max_tokens), trace)?;
    Ok((generation, choices))
}

/// A choice that is being written.
struct OpenChoice {
    index: usize,
    echo: Option<Arc<Echo>>,
    /// Characters told so far; `None` where log-probabilities are not asked for.
    offset: Option<usize>,
}

impl OpenChoice {
    /// The prompt, where it is to be repeated.
    fn opening(&mut self) -> Option<CompletionChoice> {
        let echo = self.echo.take()?;
        let logprobs = self.offset.map(|_| echo.logprobs.clone().unwrap_or_default());
        self.offset = logprobs.as_ref().map(CompletionLogprobs::offset);
        Some(CompletionChoice { index: self.index, text: echo.text.clone(), logprobs, finish_reason: None })
    }

    /// A piece of the output.
    fn piece(&mut self, app: &App, text: String, tokens: &[Token]) -> CompletionChoice {
        let logprobs = self.offset.map(|offset| {
            let mut logprobs = CompletionLogprobs::starting_at(offset);
            logprobs.extend(app.engine.tokenizer(), tokens);
            logprobs
        });
        self.offset = logprobs.as_ref().map(CompletionLogprobs::offset);
        CompletionChoice { index: self.index, text, logprobs, finish_reason: None }
    }

    fn whole(mut self, app: &App, finished: Finished) -> CompletionChoice {
        let opening = self.opening();
        let mut choice = self.piece(app, finished.text, &finished.tokens);
        if let Some(opening) = opening {
            choice.text.insert_str(0, &opening.text);
            choice.logprobs =
                opening.logprobs.zip(choice.logprobs).map(|(prompt, output)| prompt.followed_by(output));
        }
        choice.finish_reason = Some(finished.reason);
        choice
    }
}

struct CompletionChunks {
    app: Arc<App>,
    head: Arc<Head>,
    choices: Vec<OpenChoice>,
    usage: StreamUsage,
}

impl CompletionChunks {
    fn chunk(&self, choice: CompletionChoice) -> Chunk<CompletionChoice> {
        let usage = (self.usage == StreamUsage::Told).then_some(None);
        Chunk { head: self.head.clone(), choices: vec![choice], usage }
    }
}

impl sse::Chunks for CompletionChunks {
    type Choice = CompletionChoice;

    fn opening(&mut self) -> Vec<Chunk<CompletionChoice>> {
        let openings: Vec<_> = self.choices.iter_mut().filter_map(OpenChoice::opening).collect();
        openings.into_iter().map(|choice| self.chunk(choice)).collect()
    }

    fn piece(&mut self, choice: usize, text: String, tokens: &[Token]) -> Option<Chunk<CompletionChoice>> {
        let open = self.choices.get_mut(choice)?;
        if text.is_empty() && (open.offset.is_none() || tokens.is_empty()) {
            return None;
        }
        let piece = open.piece(&self.app, text, tokens);
        Some(self.chunk(piece))
    }

    fn end(&mut self, choice: usize, reason: Finish) -> Chunk<CompletionChoice> {
        let finish_reason = Some(reason);
        self.chunk(CompletionChoice { index: choice, text: String::new(), logprobs: None, finish_reason })
    }

    fn usage(&mut self, usage: TokenUsage) -> Option<Chunk<CompletionChoice>> {
        let told = self.usage == StreamUsage::Told;
        told.then(|| Chunk { head: self.head.clone(), choices: Vec::new(), usage: Some(Some(usage)) })
    }
}
