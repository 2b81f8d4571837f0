//! Runs the program and keeps what it said.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program, deaf to the environment of whoever runs the tests, and without a network.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bessemer"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("BESSEMER_") || name.starts_with("METAL_")) {
            command.env_remove(name);
        }
    }
    // What it keeps between runs is not the user's.
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).env("HF_HUB_OFFLINE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program.
pub fn bessemer<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Outcome {
    with_input(arguments, "")
}

/// Runs the program with something on its standard input.
pub fn with_input<S: AsRef<std::ffi::OsStr>>(arguments: &[S], input: &str) -> Outcome {
    let mut child = command().args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    // A program that has already failed reads nothing, which is no failure of the test.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Outcome {
    /// Standard output of a run that must have succeeded.
    pub fn output(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        &self.stdout
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.output()).unwrap()
    }
}

/// A file of the repository's oracle data.
pub fn oracle(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(path)
}

/// The same as JSON.
pub fn oracle_json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(oracle(path)).unwrap()).unwrap()
}
