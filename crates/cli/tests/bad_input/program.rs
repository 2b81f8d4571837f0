//! Running the program, cut off from the user's own settings.

use std::path::Path;
use std::process::{Command, Stdio};

/// The program with `folder` as its working directory and home, no key, no network.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bessemer"));
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| {
        name.to_str().is_some_and(|name| name.starts_with("BESSEMER_") || name.starts_with("METAL_"))
    }) {
        command.env_remove(name);
    }
    for name in ["HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command.current_dir(folder).env("HOME", folder).env("HF_HOME", "hub").env("HF_HUB_OFFLINE", "1");
    command.stdin(Stdio::null());
    command
}

/// Runs the program; exit code and message.
pub fn failure(folder: &Path, arguments: &[&str]) -> (u16, String) {
    failure_of(command(folder).args(arguments))
}

/// The same of a command that is set up already.
pub fn failure_of(command: &mut Command) -> (u16, String) {
    let output = command.output().expect("the program starts");
    let arguments: Vec<_> = command.get_args().collect();
    let code = output.status.code().unwrap_or_else(|| panic!("{arguments:?} was ended by a signal"));
    let errors = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_ne!(code, 0, "{arguments:?} should have failed");
    // A usage error has a first paragraph, then hints and the usage line.
    let from = errors.find("error: ").unwrap_or_else(|| panic!("{arguments:?} said {errors:?}"));
    let message = errors[from + "error: ".len()..].split("\n\nUsage").next().unwrap_or_default();
    let message = message.split("\n\nFor more information").next().unwrap_or_default();
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    (u16::try_from(code).expect("exit codes are small"), line)
}
