//! What can go wrong with a chat template, sorted by who must act.

use minijinja::ErrorKind;

/// Why a template could not be compiled or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template rejected the dialogue with `raise_exception`: its own words, meant for the client.
    #[error("{0}")]
    Raised(String),
    /// The template is not valid Jinja.
    #[error(
        "chat_template: must be a valid Jinja template, but line {line} has {reason}. \
         Correct the model's chat_template.jinja, or give another template"
    )]
    Syntax {
        /// Line in the template, from 1.
        line: usize,
        /// The parser's own words.
        reason: String,
    },
    /// `chat_template` in `tokenizer_config.json` has an unknown shape.
    #[error(
        "tokenizer_config.json: chat_template must be a string or a list of {{name, template}} with a `default`, \
         but it is {given}. Correct it, or put the template into chat_template.jinja"
    )]
    Config {
        /// What was found.
        given: String,
    },
    /// The template did more than any honest template does.
    #[error(
        "chat_template: must render within {limit} {what}, but this dialogue takes more. \
         Send fewer messages, or give a template without runaway loops"
    )]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The template failed on this dialogue in any other way.
    #[error(
        "chat_template: must render this dialogue, but failed{} with: {reason}. \
         Check that the messages have the fields the template reads", at_line(*.line)
    )]
    Render {
        /// Line in the template, from 1, where known.
        line: Option<usize>,
        /// The engine's own words.
        reason: String,
    },
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" in line {line}"))
}

/// The text of a `raise_exception`, carried through the engine as the source of its error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RaisedByTemplate(pub String);

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        let mut innermost = &error;
        while let Some(current) = cause {
            if let Some(raised) = current.downcast_ref::<RaisedByTemplate>() {
                return Self::Raised(raised.0.clone());
            }
            innermost = current.downcast_ref::<minijinja::Error>().unwrap_or(innermost);
            cause = current.source();
        }
        let reason = match innermost.detail() {
            Some(detail) => format!("{}: {detail}", innermost.kind()),
            None => innermost.kind().to_string(),
        };
        match innermost.kind() {
            ErrorKind::SyntaxError | ErrorKind::BadEscape => {
                Self::Syntax { line: innermost.line().unwrap_or(1), reason }
            }
            ErrorKind::OutOfFuel => Self::TooMuch { what: "template steps", limit: super::MAX_STEPS },
            _ => Self::Render { line: innermost.line().or(error.line()), reason },
        }
    }
}
