//! From tokens to text on the owner's side: incremental detokenizer, stop strings, one end.
//!
//! - **On the owner's thread.** The engine's thread knows tokens only; what text costs is paid by who reads it.
//! - **Stop strings cancel.** The engine may have run a few tokens ahead of the reader by then. They are dropped and
//!   not counted: usage is what was read up to the token that completed the stop string.
//! - **Tokens travel with their text.** A token is reported in the piece in which its first character is sent; a token
//!   that lies wholly within a stop string is counted and not reported.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bessemer_text::Detokenizer;
use futures::stream::{FusedStream, Stream, StreamExt};

use crate::reply_stream::blocking_next;
use crate::stop_strings::{Scan, StopStrings};
use crate::{EngineError, FinishReason, Reply, ReplyStream, Timeline, Token, Usage};

/// What a [`TextStream`] yields: pieces of text, then exactly one end.
#[derive(Clone, Debug)]
pub enum TextReply {
    /// The next piece.
    Delta {
        /// Text that follows all text before; empty only when a last token has none.
        text: String,
        /// The tokens that begin in it.
        tokens: Vec<Token>,
    },
    /// The last item: how it ended.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it used.
        usage: Usage,
        /// The stop string that ended it.
        matched_stop: Option<String>,
    },
    /// The last item: it could not be finished.
    Failed(EngineError),
}

/// A request's output as text. Dropping it cancels the request.
#[derive(Debug)]
pub struct TextStream {
    /// Taken away at the end, which cancels whatever still runs.
    replies: Option<ReplyStream>,
    detokenizer: Detokenizer,
    stops: StopStrings,
    /// Tokens not reported yet, each with the byte of the held text at which its own text begins.
    unreported: VecDeque<(usize, Token)>,
    ready: VecDeque<TextReply>,
    usage: Usage,
    timeline: Arc<Timeline>,
}

impl TextStream {
    pub(crate) fn new(
        replies: ReplyStream,
        detokenizer: Detokenizer,
        stops: Vec<String>,
        prompt_tokens: usize,
    ) -> Self {
        Self {
            timeline: replies.timeline().clone(),
            replies: Some(replies),
            detokenizer,
            stops: StopStrings::new(stops),
            unreported: VecDeque::new(),
            ready: VecDeque::new(),
            usage: Usage { prompt_tokens, ..Usage::default() },
        }
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.usage.prompt_tokens
    }

    /// When things happened to the request; good after the end, too.
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// Cancels the request. Text that was already generated, then [`TextReply::Finished`], still arrive.
    pub fn cancel(&self) {
        if let Some(replies) = &self.replies {
            replies.cancel();
        }
    }

    /// The next item, for threads that run no async code; `None` after the end.
    pub fn blocking_next(&mut self) -> Option<TextReply> {
        blocking_next(self)
    }

    fn on_reply(&mut self, reply: Reply) {
        self.usage.cached_tokens = self.replies.as_ref().map_or(0, ReplyStream::cached_tokens);
        match reply {
            Reply::Token(token) => {
                self.usage.completion_tokens += 1;
                let id = token.id;
                self.unreported.push_back((self.stops.held().len(), token));
                if let Some(piece) = self.detokenizer.push(id) {
                    self.on_piece(&piece);
                }
            }
            Reply::Finished { reason, .. } => {
                let rest = self.detokenizer.finish();
                if rest.is_none_or(|rest| self.on_piece(&rest)) {
                    self.flush();
                    self.end(TextReply::Finished { reason, usage: self.usage, matched_stop: None });
                }
            }
            Reply::Failed(error) => {
                self.flush();
                self.end(TextReply::Failed(error));
            }
        }
    }

    /// Sends what a piece makes safe; `false` when a stop string has ended the output.
    fn on_piece(&mut self, piece: &str) -> bool {
        match self.stops.push(piece) {
            Scan::Safe(bytes) => {
                self.send(bytes);
                true
            }
            Scan::Match { at, stop } => {
                self.send(at);
                if let Some(replies) = &self.replies {
                    replies.stop();
                }
                let reason = FinishReason::Stop;
                self.end(TextReply::Finished { reason, usage: self.usage, matched_stop: Some(stop) });
                false
            }
        }
    }

    /// Sends the first `bytes` of the held text with the tokens that begin in them.
    fn send(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let text = self.stops.take(bytes);
        let count = self.unreported.partition_point(|(at, _)| *at < bytes);
        let tokens = self.unreported.drain(..count).map(|(_, token)| token).collect();
        self.unreported.iter_mut().for_each(|(at, _)| *at -= bytes);
        self.ready.push_back(TextReply::Delta { text, tokens });
    }

    /// Sends all that is held back.
    fn flush(&mut self) {
        let text = self.stops.take(self.stops.held().len());
        let tokens: Vec<Token> = self.unreported.drain(..).map(|(_, token)| token).collect();
        if !(text.is_empty() && tokens.is_empty()) {
            self.ready.push_back(TextReply::Delta { text, tokens });
        }
    }

    fn end(&mut self, end: TextReply) {
        self.ready.push_back(end);
        self.replies = None;
    }
}

impl Stream for TextStream {
    type Item = TextReply;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TextReply>> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Poll::Ready(Some(reply));
            }
            let Some(replies) = &mut self.replies else { return Poll::Ready(None) };
            match ready!(replies.poll_next_unpin(context)) {
                Some(reply) => self.on_reply(reply),
                None => self.replies = None,
            }
        }
    }
}

impl FusedStream for TextStream {
    fn is_terminated(&self) -> bool {
        self.replies.is_none() && self.ready.is_empty()
    }
}
