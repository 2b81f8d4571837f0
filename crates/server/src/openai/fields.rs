//! A JSON object that is taken apart field by field, so that nothing in it stays unread.
//!
//! - **Every field is accounted for**: what a request type took, what [`Passive`] allows, and the rest, which is an
//!   error. A misspelt `temprature` must not silently become the default. (A derived `Deserialize` with
//!   `deny_unknown_fields` stops at the first surprise and knows neither the path nor the neighbour.)
//! - **`null` is absence**, as everywhere in OpenAI's API.
//! - **Errors carry the path**, such as `messages[2].content[0].text`, as `param`.

use std::ops::RangeInclusive;

use bessemer_config::nearest;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::passive::Passive;

/// Characters of a given value that a message repeats.
const SHOWN: usize = 60;

/// An object on its way into a request.
#[derive(Debug)]
pub struct Fields {
    path: String,
    map: Map<String, Value>,
    taken: Vec<&'static str>,
}

impl Fields {
    /// Takes an object; `path` is its place in the body, empty for the body itself.
    pub fn new(value: Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { path, map, taken: Vec::new() }),
            other => {
                let name = if path.is_empty() { "body" } else { &path };
                Err(wrong(name, "an object", &other))
            }
        }
    }

    /// Where `name` is in the body.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Takes a field of any type.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.taken.push(name);
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    pub fn required(&mut self, name: &'static str) -> Result<Value, ApiError> {
        self.take(name).ok_or_else(|| ApiError::missing(self.path(name)))
    }

    /// Takes a string.
    pub fn string(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", &other)),
        }
    }

    /// Takes a boolean.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(&self.path(name), "true or false", &other)),
        }
    }

    /// Takes a list.
    pub fn list(&mut self, name: &'static str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong(&self.path(name), "a list", &other)),
        }
    }

    /// Takes an object as it is.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(wrong(&self.path(name), "an object", &other)),
        }
    }

    /// Takes a number within `range`.
    pub fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<f32>,
    ) -> Result<Option<f32>, ApiError> {
        self.take(name).map(|value| number(&self.path(name), &value, range)).transpose()
    }

    /// Takes a whole number within `range`; `4.0` is one.
    pub fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        self.take(name).map(|value| integer(&self.path(name), &value, range)).transpose()
    }

    /// Ends the reading: whatever is left must be in `passive`, with a value that asks for nothing.
    pub fn finish(self, passive: &[&[Passive]]) -> Result<(), ApiError> {
        for (name, value) in &self.map {
            let known = passive.iter().copied().flatten().find(|field| field.name == name);
            match known {
                Some(field) if field.allows(value) => {}
                Some(field) => {
                    return Err(ApiError::unsupported(
                        self.path(name),
                        format!(
                            "{}: {}, but {} was given. Leave the field out",
                            self.path(name),
                            field.rule(),
                            shown(value)
                        ),
                    ));
                }
                None => {
                    let names = self.taken.iter().copied();
                    let names = names.chain(passive.iter().copied().flatten().map(|field| field.name));
                    return Err(ApiError::unknown_field(self.path(&shortened(name)), nearest(name, names)));
                }
            }
        }
        Ok(())
    }
}

/// A number within `range`.
pub fn number(path: &str, value: &Value, range: RangeInclusive<f32>) -> Result<f32, ApiError> {
    let rule = || format!("a number from {} to {}", range.start(), range.end());
    let given = value.as_f64().ok_or_else(|| wrong(path, &rule(), value))?;
    let given = given as f32;
    if range.contains(&given) { Ok(given) } else { Err(wrong(path, &rule(), value)) }
}

/// A whole number within `range`.
pub fn integer(path: &str, value: &Value, range: RangeInclusive<i64>) -> Result<i64, ApiError> {
    let rule = || match (*range.start(), *range.end()) {
        (i64::MIN, i64::MAX) => "a whole number of 64 bits".to_owned(),
        (low, i64::MAX) => format!("a whole number, at least {low}"),
        (low, high) => format!("a whole number from {low} to {high}"),
    };
    // Below 2^53 a float with no fraction is exactly one integer.
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
    let given = value.as_i64().or_else(|| value.as_f64().filter(|_| value.is_f64()).and_then(whole));
    given.filter(|given| range.contains(given)).ok_or_else(|| wrong(path, &rule(), value))
}

/// A list of token ids; the engine knows the vocabulary and checks against it.
pub fn token_ids(path: &str, items: &[Value]) -> Result<Vec<u32>, ApiError> {
    let id = |(index, item): (usize, &Value)| {
        let path = format!("{path}[{index}]");
        let given = integer(&path, item, 0..=i64::from(u32::MAX))?;
        u32::try_from(given).map_err(|_| wrong(&path, "a token id", item))
    };
    items.iter().enumerate().map(id).collect()
}

/// The error for a value that breaks `rule` (a noun phrase: "a string").
pub fn wrong(path: &str, rule: &str, given: &Value) -> ApiError {
    ApiError::invalid(path, format!("{path}: must be {rule}, but {} was given", shown(given)))
}

/// A value as a message shows it: short ones as JSON, containers by their kind.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        other => shortened(&other.to_string()),
    }
}

/// At most `SHOWN` characters of a text.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers() {
        let read = |value: Value| integer("n", &value, 1..=8).map_err(|error| error.message().to_owned());
        assert_eq!(read(json!(4)), Ok(4));
        assert_eq!(read(json!(4.0)), Ok(4));
        for bad in [json!(4.5), json!(0), json!(9), json!("4"), json!(true), json!(u64::MAX), json!([])] {
            let message = read(bad).unwrap_err();
            assert!(message.starts_with("n: must be a whole number from 1 to 8, but "), "{message}");
        }
        assert_eq!(integer("seed", &json!(i64::MIN), i64::MIN..=i64::MAX).ok(), Some(i64::MIN));
    }

    #[test]
    fn null_is_absent_and_leftovers_are_errors() {
        let mut fields = Fields::new(json!({"stream": null, "sed": 4}), "").unwrap();
        assert_eq!(fields.boolean("stream").unwrap(), None);
        assert_eq!(fields.integer("seed", 0..=9).unwrap(), None);
        let error = fields.finish(&[]).unwrap_err();
        assert_eq!(error.message(), "sed: is no field of this request. Did you mean `seed`?");
    }

    #[test]
    fn long_values_are_shortened() {
        let shown = shown(&Value::String("é".repeat(500)));
        assert!(shown.chars().count() <= SHOWN + 1, "{shown}");
    }
}
