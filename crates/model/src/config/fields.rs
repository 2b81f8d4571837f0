//! Typed access to the keys of config.json.

use serde_json::{Map, Value};

use crate::error::{ModelError, Result, config_error};

/// An object of config.json, and the path to it for messages.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
}

const FOREIGN: &str = "take the config.json that came with the weights";

impl<'a> Fields<'a> {
    pub(crate) fn new(value: &'a Value) -> Result<Self> {
        let object = value
            .as_object()
            .ok_or_else(|| config_error("(top level)", "must be a JSON object", kind(value), FOREIGN))?;
        Ok(Self { object, path: String::new() })
    }

    /// The value of `key`; `null` counts as absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    /// Whether `key` is there, even if it is `null`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The object under `key`.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        self.get(key)
            .map(|value| {
                let object = value.as_object().ok_or_else(|| self.wrong(key, "an object", value))?;
                Ok(Fields { object, path: format!("{}{key}.", self.path) })
            })
            .transpose()
    }

    /// The whole path of `key`, for messages.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// A whole number from 1 to `largest`.
    pub(crate) fn size(&self, key: &str, largest: u64) -> Result<usize> {
        self.optional_size(key, largest)?.ok_or_else(|| {
            config_error(
                &self.name(key),
                &format!("must be a whole number from 1 to {largest}"),
                "nothing",
                FOREIGN,
            )
        })
    }

    pub(crate) fn optional_size(&self, key: &str, largest: u64) -> Result<Option<usize>> {
        self.whole(key, 1, largest)
    }

    /// A whole number from 0 to `largest`.
    pub(crate) fn optional_count(&self, key: &str, largest: u64) -> Result<Option<usize>> {
        self.whole(key, 0, largest)
    }

    fn whole(&self, key: &str, smallest: u64, largest: u64) -> Result<Option<usize>> {
        self.get(key)
            .map(|value| {
                value.as_u64().filter(|n| (smallest..=largest).contains(n)).map(|n| n as usize).ok_or_else(
                    || self.wrong(key, &format!("a whole number from {smallest} to {largest}"), value),
                )
            })
            .transpose()
    }

    /// A list of whole numbers from 0 to `largest`; empty when absent.
    pub(crate) fn counts(&self, key: &str, largest: u64) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong(key, &format!("a list of whole numbers from 0 to {largest}"), value);
        value
            .as_array()
            .ok_or_else(wrong)?
            .iter()
            .map(|v| v.as_u64().filter(|n| *n <= largest).map(|n| n as usize).ok_or_else(wrong))
            .collect()
    }

    /// A number above 0. The kernels compute in float32, where a larger one is infinite and a smaller one zero.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>> {
        self.get(key)
            .map(|value| {
                value
                    .as_f64()
                    .filter(|x| *x > 0.0 && (*x as f32).is_normal())
                    .ok_or_else(|| self.wrong(key, "a number above 0 that float32 holds", value))
            })
            .transpose()
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value)))
            .transpose()
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a string", value)))
            .transpose()
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.get(key)
            .map(|value| {
                let wrong = || self.wrong(key, "a list of strings", value);
                value.as_array().ok_or_else(wrong)?.iter().map(|v| v.as_str().ok_or_else(wrong)).collect()
            })
            .transpose()
    }

    /// A token id or a list of them; empty when absent.
    pub(crate) fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong(key, "a token id or a list of them", value);
        let token = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong);
        match value {
            Value::Array(list) => list.iter().map(token).collect(),
            one => Ok(vec![token(one)?]),
        }
    }

    fn wrong(&self, key: &str, rule: &str, value: &Value) -> ModelError {
        config_error(&self.name(key), &format!("must be {rule}"), kind(value), FOREIGN)
    }
}

/// The value itself where it is short, else its kind.
fn kind(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => {
            let text = other.to_string();
            if text.chars().count() > 40 {
                format!("{}…", text.chars().take(40).collect::<String>())
            } else {
                text
            }
        }
    }
}
