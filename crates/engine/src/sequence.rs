//! A request's tokens on their way through the network.
//!
//! ```text
//!   tokens:  p p p p p p p g g g g        p prompt, g generated
//!            └─ computed ─┘└pending┘      keys and values are in the cache / still to go through the network
//!            └ settled ┘                  of these, the steps that computed them have completed
//! ```
//!
//! One token pending is a decode, more are prefill. After preemption everything is pending again: the generated tokens
//! are recomputed like a prompt, and the next token is drawn as if nothing had happened.
//!
//! A step is submitted before the one in front of it has been read. So the newest tokens may be *unknown*: they are on
//! the device, which feeds them to the next step itself, and stand here as zeros until the host has read them.

/// Order of arrival; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId(pub(crate) u64);

/// Whose keys and values a sequence may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Its own, and nobody may use them.
    Nothing,
    /// Those of all with this salt.
    Under(Box<str>),
}

/// A request's tokens and its place in the KV cache.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    tokens: Vec<u32>,
    prompt_len: usize,
    /// Tokens that it has in the end, at most.
    most: usize,
    /// How many of the newest tokens only the device knows.
    unknown: usize,
    /// The draw, of the step submitted last, that the newest unknown token comes from.
    draw: u32,
    pub(crate) computed: usize,
    pub(crate) settled: usize,
    pub(crate) blocks: Vec<u32>,
    pub(crate) sharing: Sharing,
    /// Whether it has held blocks: if it waits, it was preempted.
    pub(crate) admitted: bool,
}

impl Sequence {
    /// A sequence that has nothing but its prompt, at least one token, and will have `most` tokens at most.
    pub(crate) fn new(id: SequenceId, prompt: Vec<u32>, most: usize) -> Self {
        Self {
            id,
            prompt_len: prompt.len(),
            tokens: prompt,
            most,
            unknown: 0,
            draw: 0,
            computed: 0,
            settled: 0,
            blocks: Vec::new(),
            sharing: Sharing::Nothing,
            admitted: false,
        }
    }

    /// With others.
    pub(crate) fn sharing(self, sharing: Sharing) -> Self {
        Self { sharing, ..self }
    }

    /// Tokens that it has in the end, at most.
    pub(crate) fn most(&self) -> usize {
        self.most.max(self.tokens.len())
    }

    /// Prompt and generated tokens, the unknown ones as zeros.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The prompt.
    pub(crate) fn prompt(&self) -> &[u32] {
        self.tokens.get(..self.prompt_len).unwrap_or_default()
    }

    /// Those that the host knows.
    pub(crate) fn known(&self) -> &[u32] {
        self.tokens.get(..self.tokens.len().saturating_sub(self.unknown)).unwrap_or_default()
    }

    /// Tokens generated so far.
    pub(crate) fn generated(&self) -> &[u32] {
        self.tokens.get(self.prompt_len..).unwrap_or_default()
    }

    /// Tokens still to go through the network. The last token of the output never does, unless it was preempted.
    pub(crate) fn pending(&self) -> usize {
        let ended = self.unknown > 0 && self.tokens.len() >= self.most;
        if ended { 0 } else { self.tokens.len() - self.computed }
    }

    /// The draw of the step submitted last that gives the newest token, when the host does not know that token.
    pub(crate) fn fed(&self) -> Option<u32> {
        (self.unknown > 0).then_some(self.draw)
    }

    /// Appends a token that draw `draw` of the step submitted last gives.
    pub(crate) fn expect(&mut self, draw: u32) {
        self.tokens.push(0);
        self.unknown += 1;
        self.draw = draw;
    }

    /// Fills in the oldest unknown token.
    pub(crate) fn learn(&mut self, token: u32) {
        let at = self.tokens.len().saturating_sub(self.unknown);
        if let Some(place) = self.tokens.get_mut(at) {
            *place = token;
            self.unknown -= 1;
        }
    }

    /// Drops the newest unknown token: its step has failed.
    pub(crate) fn forget(&mut self) {
        if self.unknown > 0 {
            self.tokens.pop();
            self.unknown -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_tokens_are_learnt_in_order_and_forgotten_from_the_end() {
        let mut sequence = Sequence::new(SequenceId(0), vec![5, 6], 6);
        sequence.computed = 2;
        sequence.expect(3);
        assert_eq!((sequence.pending(), sequence.fed()), (1, Some(3)));
        sequence.computed = 3;
        sequence.expect(1);
        sequence.learn(7);
        assert_eq!((sequence.tokens(), sequence.fed()), ([5, 6, 7, 0].as_slice(), Some(1)));
        sequence.learn(8);
        sequence.learn(9);
        assert_eq!((sequence.tokens(), sequence.fed()), ([5, 6, 7, 8].as_slice(), None));
        sequence.expect(0);
        sequence.forget();
        sequence.forget();
        assert_eq!(sequence.generated(), [7, 8]);
    }

    #[test]
    fn a_last_token_that_is_awaited_goes_nowhere() {
        let mut sequence = Sequence::new(SequenceId(0), vec![5], 2);
        sequence.computed = 1;
        sequence.expect(0);
        assert_eq!(sequence.pending(), 0);
        sequence.forget();
        assert_eq!((sequence.pending(), sequence.most()), (0, 2));
    }
}
