//! A generation as server-sent events: chunks, the usage where asked for, `data: [DONE]`.
//!
//! A failure on the way becomes an event with OpenAI's error document, and the stream ends there, without `[DONE]`.
//! While nothing is generated a comment is sent every 15 s, so that proxies keep the connection and a client that has
//! left is noticed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bessemer_engine::Token;
use futures::stream::{self, StreamExt};
use serde::Serialize;

use crate::generation::{Generation, Output};
use crate::openai::error::ApiError;
use crate::openai::response::{Chunk, Finish, TokenUsage};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How a route writes its chunks.
pub trait Chunks: Send + 'static {
    /// A piece of a choice.
    type Choice: Serialize;
    /// The chunks before the first token.
    fn opening(&mut self) -> Vec<Chunk<Self::Choice>>;
    /// The chunk for a piece; none where there is nothing to tell.
    fn piece(&mut self, choice: usize, text: String, tokens: &[Token]) -> Option<Chunk<Self::Choice>>;
    /// The chunk for a choice's end.
    fn end(&mut self, choice: usize, reason: Finish) -> Chunk<Self::Choice>;
    /// The last chunk; none where usage was not asked for.
    fn usage(&mut self, usage: TokenUsage) -> Option<Chunk<Self::Choice>>;
}

/// A stream on its way.
struct Writer<C> {
    generation: Generation,
    chunks: C,
    queue: VecDeque<Event>,
    ended: bool,
}

/// Answers with a stream.
pub fn respond<C: Chunks>(generation: Generation, mut chunks: C) -> Response {
    let opening = chunks.opening();
    let mut writer = Writer { generation, chunks, queue: VecDeque::new(), ended: false };
    opening.iter().for_each(|chunk| writer.push(chunk));
    let events = stream::unfold(writer, |mut writer| async move {
        let event = writer.next().await?;
        Some((Ok::<_, Infallible>(event), writer))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events.boxed()).keep_alive(keep_alive).into_response();
    // nginx would collect the events otherwise.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

impl<C: Chunks> Writer<C> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match self.generation.next().await {
                Some(Output::Piece { choice, text, tokens }) => {
                    if let Some(chunk) = self.chunks.piece(choice, text, &tokens) {
                        self.push(&chunk);
                    }
                }
                Some(Output::End { choice, reason }) => {
                    let chunk = self.chunks.end(choice, reason);
                    self.push(&chunk);
                }
                Some(Output::Failed(error)) => {
                    self.generation.count_failure(&error);
                    self.fail(&error);
                }
                None => {
                    if let Some(chunk) = self.chunks.usage(self.generation.usage()) {
                        self.push(&chunk);
                    }
                    self.queue.push_back(Event::default().data("[DONE]"));
                    self.ended = true;
                }
            }
        }
    }

    fn push(&mut self, chunk: &Chunk<C::Choice>) {
        match Event::default().json_data(chunk) {
            Ok(event) => self.queue.push_back(event),
            Err(_) => self.fail(&ApiError::internal("A chunk could not be written as JSON. This is a bug")),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.queue.extend(Event::default().json_data(error.document()));
        self.ended = true;
    }
}
