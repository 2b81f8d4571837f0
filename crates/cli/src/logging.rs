//! What is logged, and how.

use std::io::IsTerminal;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{environment, output};

/// Flags of every command.
#[derive(Debug, Args)]
pub struct LoggingArguments {
    /// Log more: once for info, twice for debug, three times for trace.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Logging")]
    pub verbose: u8,
    /// Form of the log on standard error [default: text; of `serve`: log.format of the configuration].
    #[arg(long, value_enum, global = true, help_heading = "Logging")]
    pub log_format: Option<LogFormat>,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LoggingArguments {
    /// Starts logging; `quiet` is the level without `-v`. With JSON everything that is written to standard error from then on
    /// is a line of it: notes and panics too.
    pub fn start(&self, format: LogFormat, quiet: &str) -> anyhow::Result<()> {
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
        let started = match format {
            LogFormat::Text => {
                let builder = tracing_subscriber::fmt().with_env_filter(filter);
                let colours = std::io::stderr().is_terminal();
                builder.with_writer(std::io::stderr).with_ansi(colours).try_init()
            }
            LogFormat::Json => {
                // Notes are for whoever started the program, however little is logged.
                let filter = filter.add_directive(format!("{}=info", output::NOTE).parse()?);
                let builder = tracing_subscriber::fmt().with_env_filter(filter);
                builder.with_writer(std::io::stderr).json().with_span_list(false).try_init()
            }
        };
        started.map_err(|error| anyhow!("the log cannot be started: {error}"))?;
        if format == LogFormat::Json {
            output::notes_are_logged();
            std::panic::set_hook(Box::new(|panic| {
                tracing::error!(target: output::NOTE, "{panic}");
            }));
        }
        Ok(())
    }
}
