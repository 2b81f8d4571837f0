//! Python's methods and Jinja's filters where the template engine lacks or differs from them.
//!
//! - **Methods**: the engine's own Python compatibility first, then the few it leaves out.
//! - **Widths are bounded**: `indent` and string formatting take a width from the template, and the engine would
//!   allocate whatever it says.

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Columns that a template may ask for.
const MAX_WIDTH: usize = 1000;

/// Adds methods and filters.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(call_method);
    environment.add_filter("indent", indent);
    environment.add_filter("format", format);
    environment.add_function("range", range);
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    // Nobody needs these in a prompt, and their counts are unbounded.
    environment.remove_filter("slice");
    environment.remove_filter("batch");
}

/// The engine loops over `none`; Python does not, and templates tell absent content by it.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Jinja asks for a length and an index, which strings, maps and undefined values have too.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
}

fn call_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, method, args) };
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (head, tail) = text.split_once(separator).map_or((text, None), |(a, b)| (a, Some(b)));
            Ok(triple(head, tail.map_or("", |_| separator), tail.unwrap_or("")))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (head, tail) = text.rsplit_once(separator).map_or((None, text), |(a, b)| (Some(a), b));
            Ok(triple(head.unwrap_or(""), head.map_or("", |_| separator), tail))
        }
        "rsplit" => rsplit(text, args),
        "format" => {
            check_widths(text, '{', |c| c == '}')?;
            unknown_method_callback(state, value, method, args)
        }
        _ => unknown_method_callback(state, value, method, args),
    }
}

fn triple(head: &str, separator: &str, tail: &str) -> Value {
    Value::from(Tuple::from([Value::from(head), Value::from(separator), Value::from(tail)]))
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
    let count =
        limit.and_then(|limit| usize::try_from(limit).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "rsplit: empty separator")),
        Some(separator) => text.rsplitn(count, separator).collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim();
            while !rest.is_empty() {
                let cut = if parts.len() + 1 < count { rest.rfind(char::is_whitespace) } else { None };
                let (head, word) = cut.map_or(("", rest), |at| {
                    let (head, word) = rest.split_at(at);
                    (head.trim_end(), word.trim_start())
                });
                parts.push(word);
                rest = head;
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Jinja's `indent`: `width` is a number of columns or the text to put before each line.
fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = width.map_or_else(|| named.get::<Option<Value>>("width"), |width| Ok(Some(width)))?;
    let first = first.map_or_else(|| named.get::<Option<bool>>("first"), |first| Ok(Some(first)))?;
    let blank = blank.map_or_else(|| named.get::<Option<bool>>("blank"), |blank| Ok(Some(blank)))?;
    named.assert_all_used()?;
    let margin = match width {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(margin) => margin.to_owned(),
            None => " ".repeat(columns(usize::try_from(width)?)?),
        },
    };
    let mut indented = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        let wanted =
            if number == 0 { first.unwrap_or(false) } else { blank.unwrap_or(false) || !line.is_empty() };
        if number > 0 {
            indented.push('\n');
        }
        if wanted {
            indented.push_str(&margin);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

fn format(state: &mut State, text: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let format = text.as_str().unwrap_or_default();
    check_widths(format, '%', char::is_alphabetic)?;
    minijinja::filters::format(state, text, args)
}

/// Python's `range`, of at most 100 000 numbers.
fn range(first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, end) = second.map_or((0, first), |end| (first, end));
    let step = i128::from(step.unwrap_or(1));
    let (start, end) = (i128::from(start), i128::from(end));
    let count = match step {
        0 => return Err(Error::new(ErrorKind::InvalidOperation, "range: the step must not be 0")),
        1.. => (end - start + step - 1) / step,
        _ => (start - end - step - 1) / -step,
    };
    if count > 100_000 {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("range: at most 100000 numbers, not {count}"),
        ));
    }
    let number = |index: i128| i64::try_from(start + index * step).unwrap_or(i64::MAX);
    Ok((0..count.max(0)).map(|index| Value::from(number(index))).collect())
}

/// A width that may be allocated.
pub(super) fn columns(width: usize) -> Result<usize, Error> {
    if width <= MAX_WIDTH {
        return Ok(width);
    }
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("a width must be at most {MAX_WIDTH} columns, not {width}"),
    ))
}

/// Refuses format strings with a directive, from `start` to `end`, that asks for more than the largest width or takes
/// it from an argument (`%*d`).
fn check_widths(format: &str, start: char, end: fn(char) -> bool) -> Result<(), Error> {
    for directive in format.split(start).skip(1).filter_map(|rest| rest.split(end).next()) {
        if directive.starts_with(['*', '-', '+', ' ', '#', '0', '.']) && directive.contains('*') {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "a width must be written in the format, not be `*`",
            ));
        }
        for digits in directive.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
            columns(digits.parse().unwrap_or(usize::MAX))?;
        }
    }
    Ok(())
}
