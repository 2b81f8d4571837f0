//! The `bessemer` program: one binary, one file per command.
//!
//! - **Two stages.** What was typed (`arguments`, `model_arguments`, `serve_arguments`, `sampling_arguments`) becomes
//!   the engine's own options once, before anything is loaded, with the configuration between them where it has a
//!   say; the commands work with those.
//! - **Standard output is the answer**, and only that. Progress, statistics, notes and logs go to standard error, so
//!   that every command can stand in a pipe. A reader that leaves early is no error (`output`).
//! - **Environment variables are read in one file** (`environment`).
//! - **One message per failure** (`failure`): the chain of causes on one line, and a documented exit code.

mod arguments;
mod command;
mod config_file;
mod environment;
mod failure;
mod given;
mod logging;
mod model_arguments;
mod operator;
mod operator_client;
mod output;
mod progress;
mod sampling_arguments;
mod serve_arguments;
mod tensor_file;
mod time_span;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let mut arguments = arguments::Arguments::parse();
    let format = arguments.command.log_format(arguments.logging.log_format);
    let level = arguments.command.log_level();
    let outcome = arguments.logging.start(format, level).and_then(|()| arguments.command.run());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
