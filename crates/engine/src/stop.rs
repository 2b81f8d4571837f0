//! When an output ends, as far as tokens tell. (Stop strings are found where text exists, by the stream.)

use crate::{FinishReason, Request};

/// The stop rules of one request.
#[derive(Clone, Debug)]
pub(crate) struct StopRules {
    /// Sorted.
    ends: Vec<u32>,
    /// Tokens of the output at most; at least one.
    pub(crate) max_tokens: usize,
}

/// What a drawn token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Part of the output, which goes on.
    Emit,
    /// The last token of the output.
    EmitLast,
    /// Ends the output without being part of it.
    End,
}

impl StopRules {
    /// The rules of `request` for a model with these end tokens; prompt and output share `context` tokens.
    pub(crate) fn new(request: &Request, end_tokens: &[u32], context: usize) -> Self {
        let own = if request.ignore_end { &[] } else { end_tokens };
        let mut ends = [own, &request.stop_tokens].concat();
        ends.sort_unstable();
        ends.dedup();
        let room = context.saturating_sub(request.prompt.len()).max(1);
        Self { ends, max_tokens: request.max_tokens.map_or(room, |most| most.min(room)) }
    }

    /// Judges the token that follows `generated` others.
    pub(crate) fn judge(&self, token: u32, generated: usize) -> Verdict {
        if self.ends.binary_search(&token).is_ok() {
            Verdict::End
        } else if generated + 1 >= self.max_tokens {
            Verdict::EmitLast
        } else {
            Verdict::Emit
        }
    }
}

impl Verdict {
    /// Why the output ends, if it does.
    pub(crate) fn reason(self) -> Option<FinishReason> {
        match self {
            Self::Emit => None,
            Self::EmitLast => Some(FinishReason::Length),
            Self::End => Some(FinishReason::Stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(change: impl FnOnce(&mut Request)) -> StopRules {
        let mut request = Request { prompt: vec![5; 4], stop_tokens: vec![9], ..Request::default() };
        change(&mut request);
        StopRules::new(&request, &[2, 0], 10)
    }

    #[test]
    fn end_and_stop_tokens_are_not_part_of_the_output() {
        let rules = rules(|_| ());
        assert_eq!([2, 0, 9].map(|token| rules.judge(token, 0)), [Verdict::End; 3]);
        assert_eq!(rules.judge(3, 0), Verdict::Emit);
    }

    #[test]
    fn stop_tokens_hold_where_end_tokens_are_ignored() {
        let rules = rules(|request| request.ignore_end = true);
        assert_eq!(
            [2, 0, 9].map(|token| rules.judge(token, 0)),
            [Verdict::Emit, Verdict::Emit, Verdict::End]
        );
    }

    #[test]
    fn the_lesser_of_max_tokens_and_context_ends() {
        assert_eq!(rules(|_| ()).max_tokens, 6);
        let rules = rules(|request| request.max_tokens = Some(3));
        assert_eq!([0, 1, 2].map(|n| rules.judge(5, n)), [Verdict::Emit, Verdict::Emit, Verdict::EmitLast]);
        assert_eq!(rules.judge(2, 2), Verdict::End);
    }
}
