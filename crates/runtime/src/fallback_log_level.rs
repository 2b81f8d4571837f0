//! How loudly a fallback is told.

use std::fmt;
use std::str::FromStr;

use crate::SettingError;

/// `metal_optimizations.fallback_log_level`: the level of the line that the log gets when a feature is latched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FallbackLogLevel {
    /// As a failure.
    Error,
    /// As something to look at.
    #[default]
    Warn,
    /// As news.
    Info,
    /// For those who look for it.
    Debug,
}

impl FallbackLogLevel {
    /// All of them, the loudest first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// As configuration files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for FallbackLogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FallbackLogLevel {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            let rule = "it must be error, warn, info or debug";
            SettingError::new("fallback_log_level", format!("{text:?}"), rule, "set warn")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        for level in FallbackLogLevel::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        let message = "loud".parse::<FallbackLogLevel>().unwrap_err().to_string();
        assert_eq!(
            message,
            "fallback_log_level is \"loud\", but it must be error, warn, info or debug: set warn"
        );
    }
}
