//! One owner of requests: asks, listens, and compares.

use bessemer_engine::{Engine, EngineError, FinishReason, Reply, Request};
use bessemer_hal::DeviceError;

use super::mix::{Answer, Manner};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With the right tokens.
    Right,
    /// As its owner wanted, with the right tokens up to there.
    Cancelled,
    /// Its owner did not listen to the end; the right tokens up to there.
    Left,
    /// With a typed error that a failing device may lead to; the right tokens up to there.
    Failed(&'static str),
    /// Against the rules.
    Wrong(String),
}

/// Asks for `request`, whose answer is known; how it ended, and the tokens that came.
pub(super) fn ask(engine: &Engine, request: &Request, answer: &Answer, manner: Manner) -> (Ending, usize) {
    let mut stream = match engine.submit(request.clone()) {
        Ok(stream) => stream,
        Err(error) => return (failed(&error), 0),
    };
    let mut tokens = Vec::new();
    let end = loop {
        match manner {
            Manner::Cancels(after) if tokens.len() >= after => stream.cancel(),
            Manner::Leaves(after) if tokens.len() >= after => {
                drop(stream);
                return (checked(&tokens, answer, Ending::Left), tokens.len());
            }
            _ => {}
        }
        match stream.blocking_next() {
            Some(Reply::Token(token)) => tokens.push(token.id),
            Some(end) => break end,
            None => return (Ending::Wrong("its stream ended without an end".into()), tokens.len()),
        }
    };
    if let Some(more) = stream.blocking_next() {
        return (Ending::Wrong(format!("after its end came {more:?}")), tokens.len());
    }
    let ending = match end {
        Reply::Finished { usage, .. } if usage.completion_tokens != tokens.len() => {
            Ending::Wrong(format!("{} tokens came, and {} are told", tokens.len(), usage.completion_tokens))
        }
        Reply::Finished { reason: FinishReason::Cancelled, .. } => match manner {
            Manner::Patient => Ending::Wrong("it was cancelled by nobody".into()),
            Manner::Cancels(_) | Manner::Leaves(_) => Ending::Cancelled,
        },
        Reply::Finished { reason, .. } if reason != answer.reason => {
            Ending::Wrong(format!("it ended by {reason:?} instead of {:?}", answer.reason))
        }
        Reply::Finished { .. } if tokens.len() < answer.tokens.len() => {
            Ending::Wrong(format!("{} tokens came instead of {}", tokens.len(), answer.tokens.len()))
        }
        Reply::Finished { .. } => Ending::Right,
        Reply::Failed(error) => failed(&error),
        // A token is no end.
        Reply::Token(_) => Ending::Wrong("a token came as its end".into()),
    };
    (checked(&tokens, answer, ending), tokens.len())
}

/// `ending`, unless a token is not the one that belongs there.
fn checked(tokens: &[u32], answer: &Answer, ending: Ending) -> Ending {
    let wrong = (0..tokens.len()).find(|at| tokens.get(*at) != answer.tokens.get(*at));
    match wrong {
        Some(at) => {
            let (came, right) = (tokens.get(at), answer.tokens.get(at));
            Ending::Wrong(format!("token {at} is {came:?} instead of {right:?}"))
        }
        None => ending,
    }
}

/// Errors that a failing device may lead to; all others are faults of the engine.
fn failed(error: &EngineError) -> Ending {
    Ending::Failed(match error {
        EngineError::Device(DeviceError::OutOfMemory { .. }) => "out_of_memory",
        EngineError::Device(DeviceError::Timeout { .. }) => "timeout",
        EngineError::Device(DeviceError::Submission { .. }) => "submission",
        error => return Ending::Wrong(format!("it failed: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_token_is_told_whatever_the_end() {
        let answer = Answer { tokens: vec![1, 2, 3], reason: FinishReason::Length };
        for ending in [Ending::Right, Ending::Cancelled, Ending::Left, Ending::Failed("timeout")] {
            assert_eq!(checked(&[1, 2], &answer, ending.clone()), ending);
            for wrong in [&[1, 3][..], &[1, 2, 3, 4]] {
                assert!(matches!(checked(wrong, &answer, ending.clone()), Ending::Wrong(_)));
            }
        }
    }

    #[test]
    fn only_what_a_device_does_is_an_excuse() {
        let timeout = DeviceError::Timeout { what: "x".into(), millis: 1 };
        assert_eq!(failed(&timeout.into()), Ending::Failed("timeout"));
        for error in [
            EngineError::ShuttingDown,
            EngineError::Step { reason: "a panic".into() },
            DeviceError::Usage("a rule is broken".into()).into(),
        ] {
            assert!(matches!(failed(&error), Ending::Wrong(text) if text.contains(&error.to_string())));
        }
    }
}
