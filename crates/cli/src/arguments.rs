//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::command;
use crate::logging::{LogFormat, LoggingArguments};

const AFTER_HELP: &str = "\
Examples:
  bessemer generate \"Once upon a time\"
  bessemer chat --model Qwen/Qwen3-0.6B
  bessemer serve --port 8080
  bessemer info --model ./my-model

Models (--model):
  default               the story model inside this program; nothing is downloaded
  ./folder              a folder with config.json and .safetensors files (Hugging Face or MLX layout)
  org/name[@revision]   a Hugging Face id, downloaded once into the usual cache
  synth:SHAPE[:FORMAT]  the shape of a published model with random weights; see `bessemer synth --list`

Exit codes:
  0    done
  1    failed; the reason is on standard error
  2    wrong usage: an unknown flag, or a value that a flag does not take
  130  ended at once by a second interrupt while the server was finishing its requests

Environment:
  BESSEMER_ADMIN_TOKEN  token of the operator's listener, for `bessemer serve` and `bessemer top`
  BESSEMER_API_KEY      key that clients of `bessemer serve` must send, where --api-key is not given
  BESSEMER_CONFIG       the configuration file of `bessemer serve`, where --config is not given
  BESSEMER_LOG          what is logged, such as info or bessemer_server=debug; beats -v
  METAL_OPTIMIZATIONS_ENABLED
                        false, true or auto; and so for every key of the configuration, such as
                        METAL_OPTIMIZATIONS_MEMORY_POOL_NUM_HEAPS and, for `bessemer serve`, BESSEMER_PORT
  OTEL_EXPORTER_OTLP_ENDPOINT
                        where `bessemer serve` sends traces, where --otlp-endpoint is not given
  HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_CACHE
                        as in the tools of Hugging Face";

/// Runs large language models: on the command line, or as an OpenAI-compatible server.
#[derive(Debug, Parser)]
#[command(name = "bessemer", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged.
    #[command(flatten)]
    pub logging: LoggingArguments,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Generate(Box<command::Generate>),
    Chat(Box<command::Chat>),
    Serve(Box<command::Serve>),
    Top(command::Top),
    Config(command::Config),
    Info(Box<command::Info>),
    Logits(Box<command::Logits>),
    Perplexity(Box<command::Perplexity>),
    Bench(Box<command::Bench>),
    Soak(Box<command::Soak>),
    Synth(command::Synth),
    Selftest(command::Selftest),
}

impl Command {
    /// What is logged when nothing else is said.
    pub fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            Self::Soak(command) => command.log_level(),
            _ => "warn",
        }
    }

    /// In which form; `given` is what was typed. Of the server the configuration has a say, too.
    pub fn log_format(&mut self, given: Option<LogFormat>) -> LogFormat {
        let configured = match self {
            Self::Serve(serve) => serve.log_format(given),
            Self::Config(config) => config.log_format(given),
            _ => None,
        };
        given.or(configured).unwrap_or_default()
    }

    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Generate(command) => command.run(),
            Self::Chat(command) => command.run(),
            Self::Serve(command) => command.run(),
            Self::Top(command) => command.run(),
            Self::Config(command) => command.run(),
            Self::Info(command) => command.run(),
            Self::Logits(command) => command.run(),
            Self::Perplexity(command) => command.run(),
            Self::Bench(command) => command.run(),
            Self::Soak(command) => command.run(),
            Self::Synth(command) => command.run(),
            Self::Selftest(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("bessemer {}", command.get_name());
            assert!(help.contains(&example), "{}", command.get_name());
        }
    }
}
