//! `bessemer config`: what the configuration may say, what it says, and what it comes to.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bessemer_config::{PRESETS, schema, template};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::logging::LogFormat;
use crate::serve_arguments::ServeArguments;
use crate::{config_file, output};

const AFTER_HELP: &str = "\
Examples:
  bessemer config init                                write config/runtime.yaml with every key, commented out
  bessemer config check                               whether `bessemer serve` would take what is there
  bessemer config check --config other.yaml
  bessemer config show --preset batch --port 9000     what `bessemer serve` with these flags would go by, and why
  bessemer config schema > runtime.schema.json        for editors

What a key means, who goes before whom and what the presets are: docs/configuration.md.";

/// Writes, checks and shows configurations of `bessemer serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

/// What to do with it.
#[derive(Debug, Subcommand)]
enum Action {
    Check(Box<Check>),
    Show(Box<Show>),
    Schema(Schema),
    Init(Init),
}

/// Checks the configuration that `bessemer serve` would go by with the same flags and environment.
#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    serve: ServeArguments,
}

/// Shows the configuration that `bessemer serve` would go by with the same flags and environment, as a file that means
/// the same, with the origin of every value. Keys and tokens are left out.
#[derive(Debug, Args)]
struct Show {
    /// As JSON: the values, and beside them their origins.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArguments,
}

/// Prints the JSON Schema of the file.
#[derive(Debug, Args)]
struct Schema {}

/// Writes a file in which every key stands with its meaning, commented out at its default, and its schema beside it.
#[derive(Debug, Args)]
struct Init {
    /// Where to.
    #[arg(default_value = config_file::USUAL)]
    file: PathBuf,
    /// Begin with this preset.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(PRESETS.iter().map(|preset| preset.name)))]
    preset: Option<String>,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
}

impl Config {
    /// Takes what was typed for the server's log, too; its own is always text where nothing was typed.
    pub fn log_format(&mut self, given: Option<LogFormat>) -> Option<LogFormat> {
        match &mut self.action {
            Action::Check(check) => check.serve.log_format = given,
            Action::Show(show) => show.serve.log_format = given,
            Action::Schema(_) | Action::Init(_) => {}
        }
        None
    }

    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Check(check) => check.run(),
            Action::Show(show) => show.run(),
            Action::Schema(Schema {}) => output::print_json(&schema()),
            Action::Init(init) => init.run(),
        }
    }
}

impl Check {
    fn run(&self) -> anyhow::Result<()> {
        let configuration = self.serve.configuration()?;
        for note in configuration.notes() {
            output::note(&format!("note: {note}"));
        }
        match self.serve.file()? {
            Some(path) => output::print_line(&format!("{}: nothing is wrong with it", path.display())),
            None => output::print_line(&format!("there is no {}, which need not be", config_file::USUAL)),
        }
    }
}

impl Show {
    fn run(&self) -> anyhow::Result<()> {
        let configuration = self.serve.configuration()?;
        for note in configuration.notes() {
            output::note(&format!("note: {note}"));
        }
        if self.json {
            output::print_json(
                &json!({"config": configuration.json(), "origins": configuration.origins_json()}),
            )
        } else {
            output::print(&configuration.yaml())
        }
    }
}

impl Init {
    fn run(&self) -> anyhow::Result<()> {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            let cannot = || format!("{}: the folder cannot be made", folder.display());
            std::fs::create_dir_all(folder).with_context(cannot)?;
        }
        let beside = self.file.with_extension("schema.json");
        let name = beside.file_name().map(|name| name.to_string_lossy().into_owned());
        self.write(&self.file, &template(self.preset.as_deref(), name.as_deref()))?;
        // The schema is ours, and goes with the program's version.
        let text = format!("{}\n", serde_json::to_string_pretty(&schema())?);
        std::fs::write(&beside, text).with_context(|| format!("{}: cannot write it", beside.display()))?;
        output::print_line(&format!("wrote {} and {}", self.file.display(), beside.display()))
    }

    fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let shown = path.display();
        let mut options = std::fs::OpenOptions::new();
        options.write(true);
        let opened = if self.force {
            options.create(true).truncate(true).open(path)
        } else {
            options.create_new(true).open(path)
        };
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        match written {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{shown}: it is there already. Give another name, or --force to write over it")
            }
            other => other.with_context(|| format!("{shown}: cannot write it")),
        }
    }
}
