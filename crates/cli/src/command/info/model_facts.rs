//! What a model is and needs, from its configuration and its files' headers.

use std::collections::BTreeMap;
use std::fmt;

use bessemer_config::byte_size::show;
use bessemer_model::ModelConfig;
use bessemer_weights::{Format, ModelFiles, Quantisation};
use serde::Serialize;

use crate::model_arguments::EngineArguments;

/// Context of each sequence that KV memory is set aside for where the user does not say; the engine's own default.
const DEFAULT_CONTEXT: usize = 4096;

/// Facts of a model.
#[derive(Debug, Serialize)]
pub struct ModelFacts {
    name: String,
    architecture: &'static str,
    parameters: u64,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    context: usize,
    experts: Option<Experts>,
    formats: BTreeMap<String, Share>,
    tokenizer: bool,
    chat_template: bool,
    end_tokens: Vec<u32>,
    memory: Memory,
}

#[derive(Debug, Serialize)]
struct Experts {
    count: usize,
    per_token: usize,
}

/// How much of the weights is stored in one format.
#[derive(Debug, Default, Serialize)]
struct Share {
    matrices: usize,
    parameters: u64,
    bytes: u64,
}

/// Bytes that a run needs, beside the working memory of a step.
#[derive(Debug, Serialize)]
struct Memory {
    weights: u64,
    kv_per_token: u64,
    /// One sequence as long as the context (after `--context`).
    kv_one_full_context: u64,
    /// What is set aside: `--kv-memory`, or `sequences` × min(context, 4096) and at least one full context; the engine
    /// takes no more than half of the device's free memory for it.
    kv_cache: u64,
    sequences: usize,
}

impl ModelFacts {
    /// Reads them for the model and the settings of `arguments`.
    pub fn read(arguments: &EngineArguments) -> anyhow::Result<Self> {
        let files = arguments.model.open()?;
        let config = ModelConfig::from_hf(&files.config)?;
        let formats = formats(&files)?;
        let settings = &arguments.settings;
        let context = settings.context.map_or(config.context, |cap| config.context.min(cap as usize));
        let sequences = settings.max_sequences.map_or(16, usize::from);
        let per_token = config.kv_bytes_per_token(settings.kv_element()) as u64;
        let set_aside = (sequences * context.min(DEFAULT_CONTEXT)).max(context) as u64;
        Ok(Self {
            architecture: config.architecture.name(),
            parameters: formats.values().map(|share| share.parameters).sum(),
            layers: config.layers,
            hidden_size: config.hidden_size,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            vocab_size: config.vocab_size,
            context: config.context,
            experts: config.moe.as_ref().map(|moe| Experts { count: moe.experts, per_token: moe.top_k }),
            formats,
            tokenizer: files.tokenizer_json.is_some(),
            chat_template: files.chat_template.is_some(),
            end_tokens: config.end_tokens.clone(),
            memory: Memory {
                weights: files.bytes_on_disk,
                kv_per_token: per_token,
                kv_one_full_context: per_token.saturating_mul(context as u64),
                kv_cache: settings.kv_memory.unwrap_or_else(|| per_token.saturating_mul(set_aside)),
                sequences,
            },
            name: files.name,
        })
    }
}

/// Tallies the tensors by the format of the weights they hold. Scales and biases count to their matrix.
fn formats(files: &ModelFiles) -> anyhow::Result<BTreeMap<String, Share>> {
    let quantisation = Quantisation::from_config(&files.config)?;
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for name in files.tensors.names() {
        let Some(info) = files.tensors.info(&name) else { continue };
        let elements = info.shape.iter().product::<usize>() as u64;
        let bits = info.dtype.bits() as u64;
        let prefix = name.rsplit_once('.').map_or(name.as_str(), |(prefix, _)| prefix);
        let packed =
            files.tensors.info(&format!("{prefix}.scales")).and_then(|_| quantisation.format(prefix));
        let is_storage = packed.is_some() && (name.ends_with(".scales") || name.ends_with(".biases"));
        let packed = packed.filter(|_| !name.ends_with(".bias"));
        let share = shares.entry(packed.map_or_else(|| info.dtype.name().to_lowercase(), label)).or_default();
        share.bytes += elements * bits / 8;
        if !is_storage {
            share.matrices += 1;
            share.parameters += packed.map_or(elements, |format| elements * bits / format.bits() as u64);
        }
    }
    Ok(shares)
}

fn label(format: Format) -> String {
    match format {
        Format::Affine { bits, group } => format!("{bits}-bit, group {group}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

impl fmt::Display for ModelFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |has| if has { "yes" } else { "no" };
        let millions = |count: u64| format!("{:.1} million", count as f64 / 1e6);
        writeln!(f, "model {}", self.name)?;
        writeln!(
            f,
            "  architecture   {}, {} layers, width {}",
            self.architecture, self.layers, self.hidden_size
        )?;
        if let Some(experts) = &self.experts {
            writeln!(f, "  experts        {}, {} per token", experts.count, experts.per_token)?;
        }
        writeln!(
            f,
            "  attention      {} heads, {} for KV, {} wide",
            self.heads, self.kv_heads, self.head_dim
        )?;
        writeln!(f, "  parameters     {}", millions(self.parameters))?;
        for (format, share) in &self.formats {
            let (parameters, bytes) = (millions(share.parameters), show(share.bytes));
            writeln!(f, "    {format:<20} {parameters} in {} tensors, {bytes}", share.matrices)?;
        }
        writeln!(f, "  vocabulary     {}", self.vocab_size)?;
        writeln!(f, "  context        {}", self.context)?;
        writeln!(f, "  tokenizer      {}", yes(self.tokenizer))?;
        writeln!(f, "  chat template  {}", yes(self.chat_template))?;
        let memory = &self.memory;
        writeln!(f, "  memory")?;
        writeln!(f, "    weights                {}", show(memory.weights))?;
        writeln!(f, "    KV per token           {}", show(memory.kv_per_token))?;
        writeln!(f, "    KV of a full context   {}", show(memory.kv_one_full_context))?;
        writeln!(f, "    KV for {:>3} sequences   {}", memory.sequences, show(memory.kv_cache))
    }
}
