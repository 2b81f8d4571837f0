//! Panics that a library catches and turns into an error are no findings; those that leave it are.
//!
//! libFuzzer's own hook ends the process before any `catch_unwind` is reached. The hook here only takes the message
//! down, and what comes out of a whole run ends the process.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::{Mutex, PoisonError};

static LAST: Mutex<String> = Mutex::new(String::new());

/// Replaces libFuzzer's panic hook.
pub fn install() {
    set_hook(Box::new(|info| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}

/// Runs one input; a panic that reaches this point is a finding.
pub fn run(input: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(input)).is_err() {
        eprintln!("{}", LAST.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
}
