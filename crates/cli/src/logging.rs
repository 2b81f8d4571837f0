//! What is logged, and how.

use std::io::IsTerminal;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::environment;

/// Flags of every command.
#[derive(Debug, Args)]
pub struct LoggingArguments {
    /// Log more: once for info, twice for debug, three times for trace.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Logging")]
    pub verbose: u8,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t, global = true, help_heading = "Logging")]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LoggingArguments {
    /// Starts logging; `quiet` is the level without `-v`.
    pub fn start(&self, quiet: &str) -> anyhow::Result<()> {
        let level = match self.verbose {
            0 => quiet,
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let filter = match environment::variable(environment::LOG)? {
            None => EnvFilter::try_new(level)?,
            Some(given) => EnvFilter::try_new(&given).map_err(|error| {
                let name = environment::LOG;
                anyhow!(
                    "{name}: must be a level or a list of module=level, but it is {given:?} ({error}). Use info, debug \
                     or bessemer_engine=debug"
                )
            })?,
        };
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let started = match self.log_format {
            LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
            LogFormat::Json => builder.json().try_init(),
        };
        started.map_err(|error| anyhow!("the log cannot be started: {error}"))
    }
}
