//! Standard output, whose reader may leave at any time, and notes on standard error.
//!
//! `println!` panics when the reader of a pipe has left. Here that is an error like any other, [`Closed`], which ends the
//! command, cancels what it was doing, and is not reported.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// What notes are logged as, where the log is for programs.
pub const NOTE: &str = "bessemer::note";

static LOGGED: AtomicBool = AtomicBool::new(false);

/// The reader of standard output has left.
#[derive(Debug)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for Closed {}

/// Writes to standard output at once.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => anyhow::Error::new(Closed),
        _ => anyhow::Error::new(error).context("standard output: cannot write to it"),
    })
}

/// Writes a line to standard output.
pub fn print_line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a value as one JSON document.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(value)?)
}

/// Notes go into the log from now on, because each line on standard error is to be one of the log.
pub fn notes_are_logged() {
    LOGGED.store(true, Ordering::Relaxed);
}

/// Writes a line to standard error. That nobody reads it is no reason to stop.
pub fn note(text: &str) {
    if LOGGED.load(Ordering::Relaxed) {
        tracing::info!(target: NOTE, "{text}");
    } else {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

/// As [`note`], for what ends the program.
pub fn note_error(text: &str) {
    if LOGGED.load(Ordering::Relaxed) {
        tracing::error!(target: NOTE, "{text}");
    } else {
        note(text);
    }
}
