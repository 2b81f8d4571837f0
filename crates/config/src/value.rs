//! A value of a key, whatever its type.

use std::fmt::{self, Write};

use bessemer_hal::DeviceSelect;
use bessemer_runtime::{FallbackLogLevel, Master};
use serde_json::Value as Json;

use crate::Secret;

/// What a key is set to. Which of these it can be is its [`crate::Kind`]'s matter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing in particular: what the key's `absent` says.
    Absent,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(u64),
    /// A number.
    Number(f64),
    /// A text, or a name out of a few.
    Text(String),
    /// Whole numbers.
    Wholes(Vec<u64>),
    /// Texts.
    Texts(Vec<String>),
}

impl Value {
    /// As JSON.
    pub(crate) fn json(&self) -> Json {
        match self {
            Self::Absent => Json::Null,
            Self::Flag(flag) => Json::from(*flag),
            Self::Whole(number) => Json::from(*number),
            Self::Number(number) => Json::from(*number),
            Self::Text(text) => Json::from(text.as_str()),
            Self::Wholes(numbers) => Json::from(numbers.as_slice()),
            Self::Texts(texts) => Json::from(texts.as_slice()),
        }
    }
}

/// As a configuration file spells it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(&spelled(text)),
            Self::Wholes(numbers) => list(f, numbers.iter().map(u64::to_string)),
            Self::Texts(texts) => list(f, texts.iter().map(|text| spelled(text))),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = String>) -> fmt::Result {
    f.write_char('[')?;
    for (at, item) in items.enumerate() {
        f.write_str(if at == 0 { "" } else { ", " })?;
        f.write_str(&item)?;
    }
    f.write_char(']')
}

/// A text without quotes where YAML reads it as itself, else between double ones.
fn spelled(text: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let begins =
        text.starts_with(|c: char| c.is_ascii_alphabetic()) || text.parse::<std::net::Ipv4Addr>().is_ok();
    let plain = begins
        && text.chars().all(simple)
        && !["true", "false", "null"].contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // What YAML calls printable is narrower than Unicode's idea, so the rest goes by number.
            ' '..='~' | '\u{A1}'..='\u{D7FF}' if !matches!(c, '\u{2028}' | '\u{2029}') => quoted.push(c),
            _ => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// A field of [`crate::Settings`].
pub(crate) trait Field {
    /// Its value.
    fn value(&self) -> Value;
    /// Takes a value; `None` when it is of a type that the field cannot hold.
    fn set(&mut self, value: &Value) -> Option<()>;
}

impl Field for bool {
    fn value(&self) -> Value {
        Value::Flag(*self)
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        let Value::Flag(flag) = value else { return None };
        *self = *flag;
        Some(())
    }
}

macro_rules! whole {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn value(&self) -> Value {
                Value::Whole(*self as u64)
            }

            fn set(&mut self, value: &Value) -> Option<()> {
                let Value::Whole(number) = value else { return None };
                *self = <$number>::try_from(*number).ok()?;
                Some(())
            }
        }
    )*};
}

whole!(u16, u32, u64, usize);

impl Field for f64 {
    fn value(&self) -> Value {
        Value::Number(*self)
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        let Value::Number(number) = value else { return None };
        *self = *number;
        Some(())
    }
}

impl Field for String {
    fn value(&self) -> Value {
        Value::Text(self.clone())
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        let Value::Text(text) = value else { return None };
        self.clone_from(text);
        Some(())
    }
}

impl Field for Secret {
    fn value(&self) -> Value {
        Value::Text(self.reveal().to_owned())
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        let Value::Text(text) = value else { return None };
        *self = Self::new(text.clone());
        Some(())
    }
}

impl Field for Vec<u64> {
    fn value(&self) -> Value {
        Value::Wholes(self.clone())
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        let Value::Wholes(numbers) = value else { return None };
        self.clone_from(numbers);
        Some(())
    }
}

impl Field for Vec<String> {
    fn value(&self) -> Value {
        Value::Texts(self.clone())
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        let Value::Texts(texts) = value else { return None };
        self.clone_from(texts);
        Some(())
    }
}

impl Field for Master {
    fn value(&self) -> Value {
        match self {
            Self::Off => Value::Flag(false),
            Self::On => Value::Flag(true),
            Self::Auto => Value::Text("auto".to_owned()),
        }
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        *self = match value {
            Value::Flag(true) => Self::On,
            Value::Flag(false) => Self::Off,
            Value::Text(text) if text == "auto" => Self::Auto,
            _ => return None,
        };
        Some(())
    }
}

macro_rules! by_name {
    ($($named:ty),*) => {$(
        impl Field for $named {
            fn value(&self) -> Value {
                Value::Text(self.to_string())
            }

            fn set(&mut self, value: &Value) -> Option<()> {
                let Value::Text(text) = value else { return None };
                *self = text.parse().ok()?;
                Some(())
            }
        }
    )*};
}

by_name!(DeviceSelect, FallbackLogLevel);

impl<T: Field + Default> Field for Option<T> {
    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Absent, T::value)
    }

    fn set(&mut self, value: &Value) -> Option<()> {
        if *value == Value::Absent {
            *self = None;
            return Some(());
        }
        let mut inner = T::default();
        inner.set(value)?;
        *self = Some(inner);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_yaml_would_read_something_else() {
        for (text, spelling) in [
            ("default", "default"),
            ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
            ("127.0.0.1", "127.0.0.1"),
            ("127", "\"127\""),
            ("auto", "auto"),
            ("True", "\"True\""),
            ("", "\"\""),
            ("synth:a", "\"synth:a\""),
            ("*", "\"*\""),
            ("a\"b\\c\n", "\"a\\\"b\\\\c\\U0000000A\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(spelled(text), spelling);
        }
    }
}
