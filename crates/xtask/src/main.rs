//! Chores of this repository: `cargo xtask <chore>`.

mod check_metal;

use std::process::ExitCode;

const USAGE: &str = "\
Chores of this repository.

Usage: cargo xtask <chore>

  check-metal [--all]   Check what only Apple's systems compile, on any system: the Metal device and the kernels' MSL.
                        With --all, every crate that needs no C compiler for Apple's systems.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["check-metal"] => check_metal::run(check_metal::Scope::Device),
        ["check-metal", "--all"] => check_metal::run(check_metal::Scope::All),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(format!("there is no chore {:?}\n\n{USAGE}", other.join(" "))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
