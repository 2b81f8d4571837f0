//! Token ids, one at a time, to pieces of text that may be sent at once.
//!
//! - **Whole characters only**: while the newest text ends in U+FFFD the character may still be completed, so nothing
//!   is sent.
//! - **In context**: a token's text depends on its neighbours (leading spaces, runs of byte tokens), so a piece is the
//!   difference between two decodings and not the decoding of one token.
//! - **Bounded**: only the tokens of the previous piece are kept as context. Garbage that never becomes a character
//!   is given out after [`MAX_PENDING`] tokens, so each token costs a bounded amount of work.
//! - **Final**: text that was sent is never taken back. With byte fallback a bad byte turns its whole run into U+FFFD
//!   in a batch decoding, where the stream keeps the good characters it has already sent.

use crate::{Specials, Tokenizer};

/// Tokens held back at most. A character needs four; more are only seen in invalid output.
const MAX_PENDING: usize = 64;

/// Incremental decoder of one output sequence; owned, and free to move between threads.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    specials: Specials,
    /// Tokens of the piece sent last: the left context of `pending`.
    context: Vec<u32>,
    /// What `context` decodes to by itself.
    context_text: String,
    /// Tokens whose text was not sent yet.
    pending: Vec<u32>,
}

impl Detokenizer {
    /// A decoder at the start of an output, leaving special tokens out of the text.
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self::with_specials(tokenizer, Specials::Skip)
    }

    /// As [`Detokenizer::new`], with a choice about special tokens.
    pub fn with_specials(tokenizer: Tokenizer, specials: Specials) -> Self {
        Self { tokenizer, specials, context: Vec::new(), context_text: String::new(), pending: Vec::new() }
    }

    /// Takes the next token; `None` means that nothing may be sent yet.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let skipped = self.specials == Specials::Skip && self.tokenizer.is_special(id);
        if skipped || self.tokenizer.id_to_token(id).is_none() {
            return None;
        }
        self.pending.push(id);
        let text = self.unsent(&self.pending);
        if text.is_empty() {
            // Tokens without any text must not pile up; the context stays, since it still stands to the left.
            if self.pending.len() >= MAX_PENDING {
                self.pending.clear();
            }
            return None;
        }
        if !text.ends_with(char::REPLACEMENT_CHARACTER) {
            return self.send(self.pending.len(), text);
        }
        if self.pending.len() < MAX_PENDING {
            return None;
        }
        let (count, text) = self.cut(&text);
        self.send(count, text)
    }

    /// Ends the output: the text still held back, incomplete characters as U+FFFD.
    pub fn finish(&mut self) -> Option<String> {
        let text = self.unsent(&self.pending);
        self.send(self.pending.len(), text)
    }

    /// Text of `tokens` behind the context.
    fn unsent(&self, tokens: &[u32]) -> String {
        let window: Vec<u32> = self.context.iter().chain(tokens).copied().collect();
        let mut text = self.decode(&window);
        if text.starts_with(&self.context_text) {
            text.split_off(self.context_text.len())
        } else {
            // A new bad byte has changed the reading of the context, which is already sent.
            self.decode(tokens)
        }
    }

    fn decode(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, Specials::Keep)
    }

    /// Moves the first `count` pending tokens, whose text is `text`, into the context.
    fn send(&mut self, count: usize, text: String) -> Option<String> {
        self.context = self.pending.drain(..count).collect();
        self.context_text = self.decode(&self.context);
        (!text.is_empty()).then_some(text)
    }

    /// Where to cut a full window: the longest prefix that leaves the trailing incomplete character whole.
    ///
    /// A cut is harmless when both sides decode apart to what they decode to together.
    fn cut(&self, text: &str) -> (usize, String) {
        for count in (1..self.pending.len()).rev() {
            let (Some(head), Some(tail)) = (self.pending.get(..count), self.pending.get(count..)) else {
                break;
            };
            let (head, tail) = (self.unsent(head), self.decode(tail));
            if !head.is_empty() && text.strip_prefix(head.as_str()) == Some(tail.as_str()) {
                return (count, head);
            }
        }
        (self.pending.len(), text.to_owned())
    }
}
