//! Who said a value.

use std::fmt;
use std::sync::Arc;

/// Where a value is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    #[default]
    Default,
    /// The preset of this name.
    Preset(&'static str),
    /// A line of the configuration file.
    File {
        /// The path as it was given.
        path: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Argument(&'static str),
    /// Changed while the program runs.
    Admin,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Argument(flag) => write!(f, "argument {flag}"),
            Self::Admin => f.write_str("changed at run time"),
        }
    }
}
