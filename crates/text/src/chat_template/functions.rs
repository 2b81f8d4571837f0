//! Functions that `transformers` gives to templates.

use jiff::Zoned;
use jiff::fmt::strtime;
use minijinja::{Environment, Error, ErrorKind};

use super::error::RaisedByTemplate;

/// Adds `raise_exception` and `strftime_now`.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
}

fn raise_exception(message: String) -> Result<(), Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raised by the template");
    Err(error.with_source(RaisedByTemplate(message)))
}

/// The local time, in the format of Python's `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    strtime::format(format, &Zoned::now()).map_err(|error| {
        Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}"))
    })
}
