//! What is wrong with a configuration.

use std::fmt;

use crate::Origin;

/// Characters of a given value that a message repeats.
const SHOWN: usize = 60;

/// Something that cannot be; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Who said it. Absent for the file as a whole, which its message names.
    pub origin: Option<Origin>,
    /// The key, or what else is wrong.
    pub field: String,
    /// What was given.
    pub given: String,
    /// What holds for it.
    pub rule: String,
    /// What to do.
    pub cure: String,
}

impl Problem {
    pub(crate) fn new(
        origin: Option<Origin>,
        field: impl Into<String>,
        given: impl Into<String>,
        rule: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        let given = shortened(&given.into());
        Self { origin, field: field.into(), given, rule: rule.into(), cure: cure.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            // Who changes a value at run time knows that they did, and nobody said a default.
            None | Some(Origin::Default | Origin::Admin) => {}
            Some(origin) => write!(f, "{origin}: ")?,
        }
        write!(f, "{} is {}, but {}: {}", self.field, self.given, self.rule, self.cure)
    }
}

/// At most `SHOWN` characters of a text, on one line.
pub(crate) fn shortened(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Everything that is wrong with a configuration, at least one thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// In the order of the sources, and within a file of its lines.
    pub problems: Vec<Problem>,
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
