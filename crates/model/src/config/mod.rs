//! What a network is made of, read from config.json: the only place that knows Hugging Face's spelling.
//!
//! Every number is checked against the others here, so that the layers may trust them: shapes never overflow, heads
//! divide, layers exist. Keys that do not change the arithmetic (dropout, initialisers, versions) are left alone.

mod fields;
mod rope;

use bessemer_kernels::rope::RopeScaling;
use serde_json::Value;

use crate::error::{ModelError, Result, config_error};
use fields::Fields;

/// The families whose networks are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Llama 2 and 3.
    Llama,
    /// Mistral: a sliding window in every layer.
    Mistral,
    /// Qwen 2 and 2.5: biases on q, k and v.
    Qwen2,
    /// Qwen 3: q and k normalised per head.
    Qwen3,
    /// Qwen 3 with experts.
    Qwen3Moe,
}

/// `model_type` of config.json and the family it names.
const MODEL_TYPES: [(&str, Architecture); 5] = [
    ("llama", Architecture::Llama),
    ("mistral", Architecture::Mistral),
    ("qwen2", Architecture::Qwen2),
    ("qwen3", Architecture::Qwen3),
    ("qwen3_moe", Architecture::Qwen3Moe),
];

impl Architecture {
    /// As config.json spells it.
    pub fn name(self) -> &'static str {
        MODEL_TYPES.iter().find(|(_, a)| *a == self).map_or("", |(name, _)| name)
    }
}

/// How positions turn heads.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the trained range is stretched.
    pub scaling: RopeScaling,
    /// Leading dimensions of a head that turn; even.
    pub rotated: usize,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoeConfig {
    /// Experts of a layer.
    pub experts: usize,
    /// Experts that a token visits.
    pub top_k: usize,
    /// Width of one expert.
    pub width: usize,
    /// The chosen experts' weights are scaled to sum to one.
    pub normalise: bool,
    /// Per layer: experts (true) or a dense layer.
    pub sparse: Vec<bool>,
}

/// What a network is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding table; may exceed the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of a dense layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens that the positions were made for.
    pub context: usize,
    /// Added to the mean square.
    pub norm_eps: f32,
    /// How positions turn heads.
    pub rope: RopeConfig,
    /// Per layer: how many tokens back a query sees, itself included; `None` sees all.
    pub windows: Vec<Option<usize>>,
    /// Attention projections carry biases, in the families that ask.
    pub attention_bias: bool,
    /// Dense layers carry biases, in the families that ask.
    pub mlp_bias: bool,
    /// The embedding table is the output matrix too.
    pub tied: bool,
    /// Experts, if there are any.
    pub moe: Option<MoeConfig>,
    /// Tokens that end an output.
    pub end_tokens: Vec<u32>,
    /// The token that a prompt starts with, where the tokenizer says so.
    pub begin_token: Option<u32>,
}

/// Largest value of any one dimension: keeps every product of two in 64 bits with room to spare.
const LARGEST: u64 = 1 << 24;

impl ModelConfig {
    /// Reads a config.json.
    ///
    /// # Errors
    /// [`crate::ModelError::Config`] names the key, the rule, the value and the cure.
    pub fn from_hf(config: &Value) -> Result<Self> {
        let f = Fields::new(config)?;
        let architecture = architecture(&f)?;
        let hidden_size = f.size("hidden_size", LARGEST)?;
        let layers = f.size("num_hidden_layers", 4096)?;
        let heads = f.size("num_attention_heads", 65_536)?;
        let kv_heads = f.optional_size("num_key_value_heads", 65_536)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(config_error(
                "num_key_value_heads",
                &format!("must divide num_attention_heads ({heads})"),
                kv_heads,
                "take the config.json that came with the weights",
            ));
        }
        let head_dim = match f.optional_size("head_dim", 65_536)? {
            Some(dim) => dim,
            None if architecture == Architecture::Qwen3 => 128, // Hugging Face's default, in this family alone
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(config_error(
                    "head_dim",
                    "must be given when num_attention_heads does not divide hidden_size",
                    format!("hidden_size {hidden_size}, num_attention_heads {heads}"),
                    "add head_dim to config.json",
                ));
            }
        };
        if !head_dim.is_multiple_of(8) || head_dim > 512 {
            return Err(config_error(
                "head_dim",
                "must be a multiple of 8, at most 512",
                head_dim,
                UNSUPPORTED,
            ));
        }
        let activation = f.string("hidden_act")?.unwrap_or("silu");
        if !matches!(activation, "silu" | "swish") {
            return Err(config_error("hidden_act", "must be \"silu\"", activation, UNSUPPORTED));
        }
        let context = f.size("max_position_embeddings", LARGEST)?;
        let moe = match architecture {
            Architecture::Qwen3Moe => Some(moe(&f, layers)?),
            _ => None,
        };
        let intermediate_size = match &moe {
            Some(moe) if moe.sparse.iter().all(|s| *s) => {
                f.optional_size("intermediate_size", LARGEST)?.unwrap_or(moe.width)
            }
            _ => f.size("intermediate_size", LARGEST)?,
        };
        Ok(Self {
            architecture,
            vocab_size: f.size("vocab_size", LARGEST)?,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim,
            context,
            norm_eps: f.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: rope::rope(&f, head_dim)?,
            windows: windows(&f, architecture, layers)?,
            attention_bias: f.flag("attention_bias")?.unwrap_or(false),
            mlp_bias: f.flag("mlp_bias")?.unwrap_or(false),
            tied: f.flag("tie_word_embeddings")?.unwrap_or(false),
            moe,
            end_tokens: f.tokens("eos_token_id")?,
            begin_token: f.tokens("bos_token_id")?.first().copied(),
        })
    }

    /// Bytes of keys and values that one token needs in all layers, with elements of `element` bytes.
    pub fn kv_bytes_per_token(&self, element: usize) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * element
    }
}

pub(crate) const UNSUPPORTED: &str = "this network needs arithmetic that is not implemented";

fn architecture(f: &Fields<'_>) -> Result<Architecture> {
    let known = || MODEL_TYPES.map(|(name, _)| name).join(", ");
    let Some(name) = f.string("model_type")? else {
        return Err(config_error("model_type", &format!("must be one of {}", known()), "nothing", "add it"));
    };
    MODEL_TYPES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a).ok_or_else(|| {
        config_error(
            "model_type",
            &format!("must be one of {}", known()),
            name,
            "this architecture is not supported",
        )
    })
}

/// The window of each layer. Mistral slides everywhere; Qwen only where `use_sliding_window` says so, and then in the
/// layers from `max_window_layers` on (with experts: everywhere); `layer_types` says it per layer. Hugging Face's
/// default window, 4096, holds where the key is absent; `null` means none.
fn windows(f: &Fields<'_>, architecture: Architecture, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match f.has("sliding_window") {
        true => f.optional_size("sliding_window", LARGEST)?,
        false => Some(4096),
    };
    let asked = || Ok::<_, ModelError>(f.flag("use_sliding_window")?.unwrap_or(false));
    let (on, first) = match architecture {
        Architecture::Llama => (false, 0),
        Architecture::Mistral => (true, 0),
        Architecture::Qwen3Moe => (asked()?, 0),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            (asked()?, f.optional_count("max_window_layers", LARGEST)?.unwrap_or(28))
        }
    };
    let Some(window) = window.filter(|_| on) else { return Ok(vec![None; layers]) };
    if let Some(types) = f.strings("layer_types")? {
        if types.len() != layers {
            return Err(config_error(
                "layer_types",
                &format!("must have num_hidden_layers ({layers}) entries"),
                types.len(),
                "take the config.json that came with the weights",
            ));
        }
        return types
            .iter()
            .map(|kind| match *kind {
                "full_attention" => Ok(None),
                "sliding_attention" => Ok(Some(window)),
                other => Err(config_error(
                    "layer_types",
                    "must be \"full_attention\" or \"sliding_attention\"",
                    other,
                    UNSUPPORTED,
                )),
            })
            .collect();
    }
    Ok((0..layers).map(|layer| (layer >= first).then_some(window)).collect())
}

fn moe(f: &Fields<'_>, layers: usize) -> Result<MoeConfig> {
    // transformers 5 writes the second name.
    let experts = match f.optional_size("num_local_experts", 65_536)? {
        Some(experts) if !f.has("num_experts") => experts,
        _ => f.size("num_experts", 65_536)?,
    };
    let top_k = f.size("num_experts_per_tok", 65_536)?;
    if top_k > experts {
        return Err(config_error(
            "num_experts_per_tok",
            &format!("must be at most num_experts ({experts})"),
            top_k,
            "take the config.json that came with the weights",
        ));
    }
    let step = f.optional_size("decoder_sparse_step", LARGEST)?.unwrap_or(1);
    let dense = f.counts("mlp_only_layers", LARGEST)?;
    Ok(MoeConfig {
        experts,
        top_k,
        width: f.size("moe_intermediate_size", LARGEST)?,
        normalise: f.flag("norm_topk_prob")?.unwrap_or(false),
        sparse: (0..layers).map(|l| !dense.contains(&l) && (l + 1).is_multiple_of(step)).collect(),
    })
}

#[cfg(test)]
mod tests;
