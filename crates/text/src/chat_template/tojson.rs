//! The `tojson` filter as `transformers` defines it: Python's `json.dumps` and not Jinja's HTML-safe variant.
//!
//! - **Text stays text**: no HTML escapes, non-ASCII characters as they are (`ensure_ascii=False` is the default).
//! - **Key order is kept**, separators are `", "` and `": "`.
//! - **Numbers are spelled Python's way** (`1e-07`, `1e+16`, `NaN`), since models were trained on that.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::python::columns;

/// Containers inside containers; a deeper value was built by a runaway template.
const MAX_DEPTH: usize = 128;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(value: &Value, ensure_ascii: Option<bool>, named: Kwargs) -> Result<Value, Error> {
    let ensure_ascii = ensure_ascii.map_or_else(|| named.get("ensure_ascii"), |ascii| Ok(Some(ascii)))?;
    let indent = named.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none());
    let indent = match &indent {
        None => None,
        Some(indent) => match indent.as_str() {
            Some(text) => Some(text.to_owned()),
            None => Some(" ".repeat(columns(usize::try_from(indent.clone()).unwrap_or(0))?)),
        },
    };
    let separators = named.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none());
    let (item, key) = match separators {
        Some(pair) => (text(&pair.get_item_by_index(0)?)?, text(&pair.get_item_by_index(1)?)?),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let sort_keys = named.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    named.assert_all_used()?;
    let style = Style { ensure_ascii: ensure_ascii.unwrap_or(false), indent, item, key, sort_keys };
    let mut json = String::new();
    style.write(value, 0, &mut json)?;
    Ok(Value::from(json))
}

struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl Style {
    fn write(&self, value: &Value, depth: usize, json: &mut String) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(bad(format!("tojson: at most {MAX_DEPTH} containers inside each other")));
        }
        match value.kind() {
            ValueKind::None => json.push_str("null"),
            ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => json.push_str(&value.to_string()),
            ValueKind::Number => json.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), json),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item));
                self.write_container(['[', ']'], items, depth, json)?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    pairs.push((Some(key_text(&key)?), item));
                }
                if self.sort_keys {
                    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.write_container(['{', '}'], pairs.into_iter(), depth, json)?;
            }
            kind => return Err(bad(format!("tojson: {kind} has no JSON form"))),
        }
        Ok(())
    }

    fn write_container(
        &self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = (Option<String>, Value)>,
        depth: usize,
        json: &mut String,
    ) -> Result<(), Error> {
        json.push(open);
        let mut empty = true;
        for (key, item) in items {
            if !empty {
                json.push_str(&self.item);
            }
            empty = false;
            self.write_line(depth + 1, json);
            if let Some(key) = key {
                self.write_text(&key, json);
                json.push_str(&self.key);
            }
            self.write(&item, depth + 1, json)?;
            if json.len() > super::MAX_OUTPUT {
                return Err(bad(format!("tojson: at most {} bytes", super::MAX_OUTPUT)));
            }
        }
        if !empty {
            self.write_line(depth, json);
        }
        json.push(close);
        Ok(())
    }

    fn write_line(&self, depth: usize, json: &mut String) {
        if let Some(indent) = &self.indent {
            json.push('\n');
            json.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn write_text(&self, text: &str, json: &mut String) {
        json.push('"');
        for c in text.chars() {
            match c {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\u{8}' => json.push_str("\\b"),
                '\u{c}' => json.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(json, "\\u{unit:04x}");
                    }
                }
                c => json.push(c),
            }
        }
        json.push('"');
    }
}

/// A map key: JSON knows only strings, and Python converts the rest.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number if key.is_integer() => Ok(key.to_string()),
        ValueKind::Number => Ok(float(f64::try_from(key.clone())?)),
        kind => Err(bad(format!("tojson: {kind} cannot be a key"))),
    }
}

/// Python's `repr` of a float: shortest digits, exponents from 1e16 and below 1e-4, at least two exponent digits.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = number.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

fn text(value: &Value) -> Result<String, Error> {
    value.as_str().map(str::to_owned).ok_or_else(|| bad("tojson: separators must be two strings".to_owned()))
}

fn bad(detail: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_python_prints_them() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float(number), expected);
        }
    }
}
