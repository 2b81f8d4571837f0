//! All choices of one request, running side by side in the engine.
//!
//! - **All or none**: when one choice cannot be submitted or fails, the others are dropped, which cancels them. A
//!   client cannot use half an answer.
//! - **Limits bend to the context**: a `max_tokens` beyond the context's end means "up to the end"; clients send fixed
//!   numbers. A prompt that leaves no room at all is an error.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bessemer_engine::{Prompt, TextReply, TextRequest, TextStream, Token};
use futures::stream::{SelectAll, Stream, StreamExt};
use tracing::Span;

use crate::app::App;
use crate::openai::error::ApiError;
use crate::openai::response::{Finish, TokenUsage};
use crate::openai::settings::Settings;
use crate::traces::{GenerationTrace, RequestTrace};
use crate::{ErrorKind, ServerMeter};

/// What a generation yields. After the last choice's end or a failure comes nothing.
#[derive(Debug)]
pub enum Output {
    /// The next piece of a choice.
    Piece {
        /// The choice.
        choice: usize,
        /// The text that follows; may be empty.
        text: String,
        /// The tokens that begin in it.
        tokens: Vec<Token>,
    },
    /// A choice has ended.
    End {
        /// The choice.
        choice: usize,
        /// Why.
        reason: Finish,
    },
    /// The request has failed.
    Failed(ApiError),
}

/// The running choices of a request. Dropping it cancels them.
pub struct Generation {
    running: SelectAll<Choice>,
    /// Ends of choices that never ran, since no token was asked of them.
    ready: VecDeque<Output>,
    usage: TokenUsage,
    /// Choices of each prompt.
    n: usize,
    open: usize,
    started: Instant,
    span: Span,
    meter: Arc<ServerMeter>,
    trace: Option<GenerationTrace>,
}

/// One choice's stream.
struct Choice {
    index: usize,
    stream: TextStream,
}

impl Generation {
    /// Submits every choice of every prompt; choice `i` of prompt `p` has the number `p · n + i`.
    ///
    /// `max_tokens` of 0 runs nothing.
    pub fn submit(
        app: &App,
        prompts: Vec<Vec<u32>>,
        settings: &Settings,
        max_tokens: Option<usize>,
        trace: Option<Arc<RequestTrace>>,
    ) -> Result<Self, ApiError> {
        if app.is_draining() {
            return Err(ApiError::shutting_down());
        }
        let usage = TokenUsage::of_prompt(prompts.iter().map(Vec::len).sum());
        let mut generation = Self {
            running: SelectAll::new(),
            ready: VecDeque::new(),
            usage,
            n: settings.n,
            open: 0,
            started: Instant::now(),
            span: Span::current(),
            meter: app.options.meter.clone(),
            trace: trace.map(|trace| GenerationTrace::new(trace, app.model.clone())),
        };
        let context = app.engine.info().context;
        for (number, prompt) in prompts.iter().enumerate() {
            for choice in 0..settings.n {
                let index = number * settings.n + choice;
                if max_tokens == Some(0) {
                    generation.ready.push_back(Output::End { choice: index, reason: Finish::Length });
                } else {
                    let stream = app.engine.generate_text(TextRequest {
                        prompt: Prompt::Tokens(prompt.clone()),
                        sampling: settings.sampling_of(choice),
                        max_tokens: max_tokens.map(|tokens| tokens.min(context)),
                        stop: settings.stop.clone(),
                        stop_tokens: settings.stop_tokens.clone(),
                        ignore_end: settings.ignore_end,
                        cache_salt: settings.cache_salt.clone(),
                        ..TextRequest::default()
                    });
                    // Refused as a whole: nobody has left.
                    let stream = stream.inspect_err(|_| generation.open = 0)?;
                    if let Some(trace) = &mut generation.trace {
                        trace.submitted(index, stream.timeline().clone());
                    }
                    generation.running.push(Choice { index, stream });
                }
                generation.open += 1;
            }
        }
        Ok(generation)
    }

    /// What was used up to now; complete after the last end.
    pub fn usage(&self) -> TokenUsage {
        self.usage
    }

    /// Counts a failure that is told in a stream, where no answer's status tells of it.
    pub fn count_failure(&self, error: &ApiError) {
        self.meter.failed(error.kind());
    }

    fn output(&mut self, choice: usize, reply: TextReply) -> Output {
        match reply {
            TextReply::Delta { text, tokens } => Output::Piece { choice, text, tokens },
            TextReply::Finished { reason, usage, .. } => match Finish::of(reason) {
                Some(reason) => {
                    self.usage.add_output(usage.completion_tokens);
                    if choice.is_multiple_of(self.n) {
                        self.usage.prompt_tokens_details.cached_tokens += usage.cached_tokens;
                    }
                    Output::End { choice, reason }
                }
                // Nobody but the engine's own end cancels a request that still has a reader.
                None => Output::Failed(ApiError::shutting_down()),
            },
            TextReply::Failed(error) => Output::Failed(error.into()),
        }
    }

    /// Counts an output on its way out.
    fn account(&mut self, output: &Output) {
        match output {
            Output::Piece { .. } => return,
            Output::End { choice, reason } => {
                self.open = self.open.saturating_sub(1);
                if let Some(trace) = &mut self.trace {
                    trace.ended(*choice, reason.name());
                }
            }
            Output::Failed(error) => {
                if let Some(trace) = &mut self.trace {
                    trace.failed(error.kind());
                }
                self.open = 0;
                self.running.clear();
                self.ready.clear();
                tracing::warn!(parent: &self.span, status = error.status().as_u16(), "failed");
            }
        }
        if self.open == 0 {
            self.trace = None;
            let TokenUsage { prompt_tokens, completion_tokens, prompt_tokens_details, .. } = self.usage;
            let (cached, milliseconds) =
                (prompt_tokens_details.cached_tokens, self.started.elapsed().as_millis());
            tracing::info!(parent: &self.span, prompt_tokens, cached, completion_tokens, milliseconds, "generated");
        }
    }
}

impl Stream for Generation {
    type Item = Output;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Output>> {
        if self.open == 0 {
            return Poll::Ready(None);
        }
        let output = match self.ready.pop_front() {
            Some(output) => output,
            None => match std::task::ready!(self.running.poll_next_unpin(context)) {
                Some((choice, reply)) => self.output(choice, reply),
                None => {
                    Output::Failed(ApiError::internal("The engine ended without an answer. This is a bug"))
                }
            },
        };
        self.account(&output);
        Poll::Ready(Some(output))
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.open > 0 {
            self.meter.failed(ErrorKind::Cancelled);
            let milliseconds = self.started.elapsed().as_millis();
            tracing::info!(parent: &self.span, choices = self.open, milliseconds, "cancelled: nobody reads any more");
        }
    }
}

impl Stream for Choice {
    type Item = (usize, TextReply);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let index = self.index;
        self.stream.poll_next_unpin(context).map(|reply| reply.map(|reply| (index, reply)))
    }
}

/// One finished choice.
#[derive(Debug)]
pub struct Finished {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub reason: Finish,
}

/// Runs a generation of `choices` choices to its end.
pub async fn collect(
    mut generation: Generation,
    choices: usize,
) -> Result<(Vec<Finished>, TokenUsage), ApiError> {
    let start = || Finished { text: String::new(), tokens: Vec::new(), reason: Finish::Length };
    let mut all: Vec<Finished> = (0..choices).map(|_| start()).collect();
    while let Some(output) = generation.next().await {
        match output {
            Output::Piece { choice, text, tokens } => {
                if let Some(finished) = all.get_mut(choice) {
                    finished.text.push_str(&text);
                    finished.tokens.extend(tokens);
                }
            }
            Output::End { choice, reason } => {
                if let Some(finished) = all.get_mut(choice) {
                    finished.reason = reason;
                }
            }
            Output::Failed(error) => return Err(error),
        }
    }
    Ok((all, generation.usage()))
}

/// Runs work that may take a while (templates, tokenizers) where it holds up no other connection.
pub async fn off_thread<T: Send + 'static>(
    app: Arc<App>,
    work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = Span::current();
    let task = tokio::task::spawn_blocking(move || span.in_scope(|| work(&app)));
    task.await.unwrap_or_else(|_| Err(ApiError::internal("Preparing the prompt failed. This is a bug")))
}
