//! `bessemer synth`: checkpoints made up on the spot, as folders.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use bessemer_config::byte_size;
use bessemer_weights::{ModelFiles, OpenOptions, synth_shapes};
use clap::Args;

use crate::tensor_file::{Entry, TensorFile};
use crate::{output, progress};

const AFTER_HELP: &str = "\
Examples:
  bessemer synth --list
  bessemer synth qwen3-0.6b --out ./random-0.6b
  bessemer synth qwen3-0.6b:8 --out ./random-0.6b-8bit
  bessemer info --model ./random-0.6b

SHAPE:FORMAT: FORMAT is a number of bits (2, 3, 4, 5, 6, 8), with a group as in 4g32, or mxfp4, bf16, f16, f32;
without it 4. Without a folder the same model runs as --model synth:SHAPE[:FORMAT].";

/// Writes a model with the shape of a published one and random weights, to measure loading and speed.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, group = clap::ArgGroup::new("what").required(true))]
pub struct Synth {
    /// Show the shapes.
    #[arg(long, group = "what", conflicts_with = "out")]
    list: bool,
    /// Shape, and format of the weights.
    #[arg(value_name = "SHAPE[:FORMAT]", group = "what", requires = "out")]
    shape: Option<String>,
    /// Folder to write; must be empty or not there yet.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Synth {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match (self.shape, self.out) {
            (Some(shape), Some(out)) => {
                let shape = shape.strip_prefix("synth:").unwrap_or(&shape);
                let options = OpenOptions { seed: self.seed, ..OpenOptions::default() };
                write(&ModelFiles::open(&format!("synth:{shape}"), &options)?, &out)
            }
            _ => list(),
        }
    }
}

fn list() -> anyhow::Result<()> {
    let line =
        |name: &str, parameters: u64| format!("{name:<20} {:>8.2} B parameters\n", parameters as f64 / 1e9);
    output::print(&synth_shapes().iter().map(|shape| line(shape.name, shape.parameters)).collect::<String>())
}

fn write(files: &ModelFiles, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot create it", folder.display()))?;
    let mut there =
        std::fs::read_dir(folder).with_context(|| format!("{}: cannot list it", folder.display()))?;
    if there.next().is_some() {
        bail!("{}: --out must be an empty folder, but it holds files. Give another", folder.display());
    }
    write_weights(files, &folder.join("model.safetensors"))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("{}: cannot write it", path.display()))
    };
    if let Some(tokenizer) = &files.tokenizer_json {
        put("tokenizer.json", tokenizer)?;
    }
    for (name, value) in [
        ("tokenizer_config.json", &files.tokenizer_config),
        ("generation_config.json", &files.generation_config),
    ] {
        if let Some(value) = value {
            put(name, &serde_json::to_vec_pretty(value)?)?;
        }
    }
    if let Some(template) = &files.chat_template {
        put("chat_template.jinja", template.as_bytes())?;
    }
    // Last: a folder without it is no model, so one that was broken off is not taken for whole.
    put("config.json", &serde_json::to_vec_pretty(&files.config)?)?;
    let size = byte_size::show(files.bytes_on_disk);
    output::note(&format!(
        "{}: {size} of weights in {} tensors",
        folder.display(),
        files.tensors.names().len()
    ));
    Ok(())
}

/// Tensor by tensor: one is in memory at a time.
fn write_weights(files: &ModelFiles, path: &Path) -> anyhow::Result<()> {
    let names = files.tensors.names();
    let entry = |name: &String| {
        let info =
            files.tensors.info(name).ok_or_else(|| anyhow!("{}: tensor {name} has no shape", files.name))?;
        Ok(Entry { name: name.clone(), dtype: info.dtype, shape: info.shape })
    };
    let mut file = TensorFile::create(path, names.iter().map(entry).collect::<anyhow::Result<_>>()?)?;
    let bar = progress::steps(names.len(), "tensors");
    for name in &names {
        file.write(name, &files.tensors.read(name)?.bytes)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    file.finish()
}
