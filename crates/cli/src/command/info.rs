//! `bessemer info`: what this machine offers, and what a model needs.

mod model_facts;

use std::fmt::Write;

use bessemer_config::byte_size;
use bessemer_hal::DeviceInfo;
use clap::Args;
use serde_json::{Value, json};

use crate::model_arguments::EngineArguments;
use crate::output;
use model_facts::ModelFacts;

const AFTER_HELP: &str = "\
Examples:
  bessemer info
  bessemer info --model ./my-model --context 8192 --max-sequences 4
  bessemer info --model Qwen/Qwen3-0.6B --json

A model's configuration and the headers of its files are read; its weights are not loaded.";

/// Shows the devices of this machine, and with --model the facts of a model and the memory it needs.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Info {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

impl Info {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let devices = bessemer_hal::devices();
        let model = match self.engine.model.model {
            Some(_) => Some(ModelFacts::read(&self.engine)?),
            None => None,
        };
        if self.json {
            return output::print_json(&json!({
                "version": env!("CARGO_PKG_VERSION"),
                "devices": devices.iter().map(|device| device_json(device.info())).collect::<Vec<_>>(),
                "model": model,
            }));
        }
        let mut text = format!("bessemer {}\n", env!("CARGO_PKG_VERSION"));
        for device in &devices {
            text.push_str(&device_text(device.info()));
        }
        if let Some(model) = model {
            write!(text, "\n{model}")?;
        }
        output::print(&text)
    }
}

fn backend(info: &DeviceInfo) -> String {
    format!("{:?}", info.backend).to_lowercase()
}

fn device_json(info: &DeviceInfo) -> Value {
    json!({
        "name": info.name,
        "backend": backend(info),
        "features": info.features,
        "workers": info.limits.workers,
        "memory_budget": info.limits.memory_budget,
        "max_buffer_size": info.limits.max_buffer_size,
        "alignment": info.limits.alignment,
        "unified_memory": info.limits.unified_memory,
    })
}

fn device_text(info: &DeviceInfo) -> String {
    let limits = &info.limits;
    let features = if info.features.is_empty() { "none".into() } else { info.features.join(", ") };
    format!(
        "\ndevice {}: {}\n  features       {features}\n  workers        {}\n  memory         {}{}\n  largest buffer {}\n",
        backend(info),
        info.name,
        limits.workers,
        byte_size::show(limits.memory_budget),
        if limits.unified_memory { ", shared with the host" } else { "" },
        byte_size::show(limits.max_buffer_size),
    )
}
