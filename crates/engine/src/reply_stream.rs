//! The two ends of a request's replies: the engine's, which never waits, and the owner's.
//!
//! The channel is bounded by the request's own `max_tokens` + 2, all that can ever be sent, so the engine's thread
//! finds room whatever the owner does, and a slow owner slows nobody else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use futures::Stream;
use futures::stream::{FusedStream, StreamExt};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::gate::Ticket;
use crate::serving::RequestMeter;
use crate::{EngineError, Reply, Timeline};

/// A request's replies: tokens, then exactly one [`Reply::Finished`] or [`Reply::Failed`].
///
/// Dropping it cancels the request: its KV blocks are free again after the step that is running.
#[derive(Debug)]
pub struct ReplyStream {
    replies: Receiver<Reply>,
    beside: Arc<Beside>,
    timeline: Arc<Timeline>,
    ended: bool,
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Outlet {
    replies: Sender<Reply>,
    beside: Arc<Beside>,
    meter: RequestMeter,
    _ticket: Ticket,
}

/// What both ends know beside the replies.
#[derive(Debug, Default)]
struct Beside {
    cancelled: AtomicBool,
    cached_tokens: AtomicUsize,
}

/// Both ends for a request that yields at most `tokens` tokens.
pub(crate) fn reply_channel(tokens: usize, ticket: Ticket, meter: RequestMeter) -> (Outlet, ReplyStream) {
    let bound = tokens.saturating_add(2).min(tokio::sync::Semaphore::MAX_PERMITS);
    let (sender, replies) = mpsc::channel(bound);
    let beside = Arc::new(Beside::default());
    let timeline = meter.timeline().clone();
    let outlet = Outlet { replies: sender, beside: beside.clone(), meter, _ticket: ticket };
    (outlet, ReplyStream { replies, beside, timeline, ended: false })
}

impl Outlet {
    /// Whether the owner has lost interest.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.beside.cancelled.load(Ordering::Acquire) || self.replies.is_closed()
    }

    /// Tells how many tokens of the prompt the prefix cache had.
    pub(crate) fn cached(&self, tokens: usize) {
        self.beside.cached_tokens.store(tokens, Ordering::Release);
    }

    /// Rows of the request were submitted.
    pub(crate) fn scheduled(&self, now: Instant) {
        self.meter.scheduled(now);
    }

    /// Sends a token. A failure means that the stream was dropped, which the next step boundary sees by itself.
    pub(crate) fn token(&self, token: crate::Token) {
        self.meter.token();
        self.replies.try_send(Reply::Token(token)).ok();
    }

    /// Leaves the engine, then sends the end: whoever sees the end finds the request gone from every count.
    pub(crate) fn end(self, end: Reply) {
        let Self { replies, meter, _ticket, .. } = self;
        meter.end(match &end {
            Reply::Finished { reason, .. } => Some(*reason),
            _ => None,
        });
        drop(_ticket);
        replies.try_send(end).ok();
    }
}

impl ReplyStream {
    /// Cancels the request. Tokens that were already generated, then [`Reply::Finished`], still arrive.
    pub fn cancel(&self) {
        self.beside.cancelled.store(true, Ordering::Release);
    }

    /// Tokens of the prompt whose keys and values the prefix cache had; known once the first token is there.
    pub fn cached_tokens(&self) -> usize {
        self.beside.cached_tokens.load(Ordering::Acquire)
    }

    /// Cancels the request because its output is complete: whoever counts sees it stopped, not left.
    pub(crate) fn stop(&self) {
        self.timeline.stop();
        self.cancel();
    }

    /// When things happened to the request; good after the end, too.
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// The next reply, for threads that run no async code; `None` after the end.
    pub fn blocking_next(&mut self) -> Option<Reply> {
        blocking_next(self)
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Stream for ReplyStream {
    type Item = Reply;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let reply = match self.replies.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(reply)) => reply,
            // The engine went away with the request inside: that is an end too, and the owner must hear of it.
            Poll::Ready(None) => Reply::Failed(EngineError::ShuttingDown),
        };
        self.ended = !matches!(reply, Reply::Token(_));
        Poll::Ready(Some(reply))
    }
}

impl FusedStream for ReplyStream {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

/// The next item of a stream, sleeping until it is there.
///
/// Not the channel's own blocking receive, which panics when it is called from inside an async runtime.
pub(crate) fn blocking_next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match stream.poll_next_unpin(&mut context) {
            Poll::Ready(item) => return item,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;
    use crate::serving::ServingMeter;
    use crate::{FinishReason, Token, Usage};

    #[test]
    fn one_end_then_nothing() {
        let gate = Gate::new(1);
        let (outlet, mut stream) =
            reply_channel(1, gate.enter().unwrap(), ServingMeter::new(None).request(1));
        outlet.token(Token { id: 3, logprob: -0.5, top: Vec::new() });
        outlet.end(Reply::Finished { reason: FinishReason::Length, usage: Usage::default() });
        assert_eq!(gate.in_flight(), 0);
        assert!(matches!(stream.blocking_next(), Some(Reply::Token(token)) if token.id == 3));
        assert!(matches!(stream.blocking_next(), Some(Reply::Finished { .. })));
        assert!(stream.blocking_next().is_none() && stream.is_terminated());
    }

    #[test]
    fn a_lost_engine_is_an_end() {
        let (outlet, mut stream) =
            reply_channel(1, Gate::new(1).enter().unwrap(), ServingMeter::new(None).request(1));
        let other = std::thread::spawn(move || drop(outlet));
        assert!(matches!(stream.blocking_next(), Some(Reply::Failed(EngineError::ShuttingDown))));
        assert!(stream.blocking_next().is_none());
        other.join().unwrap();
    }

    #[test]
    fn dropping_cancels() {
        let (outlet, stream) =
            reply_channel(1, Gate::new(1).enter().unwrap(), ServingMeter::new(None).request(1));
        assert!(!outlet.is_cancelled());
        drop(stream);
        assert!(outlet.is_cancelled());
    }
}
