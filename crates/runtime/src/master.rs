//! The master switch of the three optimisations.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::SettingError;

/// `metal_optimizations.enabled`: `false`, `true` or `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Master {
    /// The plain path.
    Off,
    /// Every feature that its own switch wants.
    On,
    /// The plain path until a [`crate::Verdict`] says that the features help here, then these.
    #[default]
    Auto,
}

impl Master {
    /// As configuration files and the environment spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "false",
            Self::On => "true",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Master {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        [Self::Off, Self::On, Self::Auto].into_iter().find(|master| master.name() == text).ok_or_else(|| {
            let value = format!("{text:?}");
            SettingError::new("enabled", value, "it must be false, true or auto", "set auto")
        })
    }
}

impl Serialize for Master {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On => serializer.serialize_bool(true),
            Self::Auto => serializer.serialize_str(self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        for master in [Master::Off, Master::On, Master::Auto] {
            assert_eq!(master.to_string().parse(), Ok(master));
        }
        let message = "yes".parse::<Master>().unwrap_err().to_string();
        assert_eq!(message, "enabled is \"yes\", but it must be false, true or auto: set auto");
    }
}
