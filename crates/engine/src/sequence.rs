//! A request's tokens on their way through the network.
//!
//! ```text
//!   tokens:  p p p p p p p g g g g        p prompt, g generated
//!            └─ computed ─┘└pending┘      keys and values are in the cache / still to go through the network
//! ```
//!
//! One token pending is a decode, more are prefill. After preemption everything is pending again: the generated tokens
//! are recomputed like a prompt, and the next token is drawn as if nothing had happened.

/// Order of arrival; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId(pub(crate) u64);

/// A request's tokens and its place in the KV cache.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    tokens: Vec<u32>,
    prompt_len: usize,
    pub(crate) computed: usize,
    pub(crate) blocks: Vec<u32>,
}

impl Sequence {
    /// A sequence that has nothing but its prompt, at least one token.
    pub(crate) fn new(id: SequenceId, prompt: Vec<u32>) -> Self {
        Self { id, prompt_len: prompt.len(), tokens: prompt, computed: 0, blocks: Vec::new() }
    }

    /// Prompt and generated tokens.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The prompt.
    pub(crate) fn prompt(&self) -> &[u32] {
        self.tokens.get(..self.prompt_len).unwrap_or_default()
    }

    /// Tokens generated so far.
    pub(crate) fn generated(&self) -> &[u32] {
        self.tokens.get(self.prompt_len..).unwrap_or_default()
    }

    /// Tokens still to go through the network.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Appends a generated token.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }
}
