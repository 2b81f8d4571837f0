//! How a failure is told: one line, the chain of causes once, and an exit code.

use std::process::ExitCode;

use crate::output::Closed;

/// Prints `error: …` on standard error; the exit code that goes with it.
pub fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever reads us has what they wanted: `bessemer generate … | head -1`.
    if error.chain().any(|cause| cause.is::<Closed>()) {
        return ExitCode::SUCCESS;
    }
    crate::output::note_error(&format!("error: {}", message(error)));
    ExitCode::FAILURE
}

/// The chain of causes on one line. Causes that the message before them already quotes are left out.
pub fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if message.contains(&text) {
            continue;
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&text);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn each_cause_is_told_once() {
        let error =
            anyhow::anyhow!("no such file").context("a.json: cannot read it: no such file").context("model");
        assert_eq!(message(&error), "model: a.json: cannot read it: no such file");
        let error = Err::<(), _>(anyhow::anyhow!("inner")).context("outer").unwrap_err();
        assert_eq!(message(&error), "outer: inner");
    }
}
