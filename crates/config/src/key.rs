//! One key of the configuration.

use crate::value::Field;
use crate::{Kind, Settings, Value};

/// A key: everything that is known of it.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its sections and its name, between points.
    pub path: &'static str,
    /// Other names that it is read by, in the same section.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// What it means that nothing is said; `None` for a key that always has a value.
    pub absent: Option<&'static str>,
    /// What it does, as a phrase.
    pub about: &'static str,
    /// When it acts.
    pub acts: Acts,
    /// The flag of `bessemer serve` that sets it.
    pub flag: Option<&'static str>,
    pub(crate) place: Place,
}

/// When a change of a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    /// At the next boundary between two steps, with requests in flight.
    AtOnce,
    /// When the program starts.
    AtStart,
    /// Not yet: it is checked and kept, and nothing acts on it.
    NotYet(&'static str),
}

/// Where it lies in the settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub get: fn(&Settings) -> Value,
    pub set: fn(&mut Settings, &Value) -> Option<()>,
}

/// The value at a place, whatever its type.
pub(crate) fn get(field: &impl Field) -> Value {
    field.value()
}

/// The same for setting it.
pub(crate) fn set(field: &mut impl Field, value: &Value) -> Option<()> {
    field.set(value)
}

impl Key {
    /// Its name without the sections.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The sections, between points; empty at the top.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The environment variable that sets it: the path in capitals, points as underscores, and `BESSEMER_` in front
    /// where the path does not begin with `metal_`.
    pub fn variable(&self) -> String {
        let path = self.path.replace('.', "_").to_ascii_uppercase();
        if self.path.starts_with("metal_") { path } else { format!("BESSEMER_{path}") }
    }

    /// Its value in `settings`.
    pub fn value(&self, settings: &Settings) -> Value {
        (self.place.get)(settings)
    }

    /// Whether its value must not be shown.
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }

    /// What its value must be: what follows "it must be" in a message.
    pub fn rule(&self) -> String {
        match (self.absent, self.absent_word()) {
            (Some(_), word) => format!("{}, or {word}", self.kind.rule()),
            (None, _) => self.kind.rule(),
        }
    }

    /// How a file says that nothing is said: `auto` where the program then chooses a number.
    pub(crate) fn absent_word(&self) -> &'static str {
        match self.kind {
            Kind::Whole(_) | Kind::Bytes(_) => "auto",
            _ => "null",
        }
    }

    /// A value as a file spells it.
    pub fn spelled(&self, value: &Value) -> String {
        match value {
            Value::Absent => self.absent_word().to_owned(),
            value => value.to_string(),
        }
    }

    /// A value as JSON, a secret hidden.
    pub fn json(&self, value: &Value) -> serde_json::Value {
        match value {
            Value::Absent if self.absent_word() == "auto" => "auto".into(),
            Value::Absent => serde_json::Value::Null,
            _ if self.is_secret() => "(hidden)".into(),
            value => value.json(),
        }
    }
}
