//! The hyper-parameters of published models, for weights made up on the spot (`synth:`).
//!
//! Source: the `config.json` of each model on the Hugging Face Hub (instruct versions). `qwen3moe-small` is our own: the
//! smallest mixture of experts that still has the proportions of the large ones.

use serde_json::{Value, json};

/// One published shape. Extents are in elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) family: Family,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Width of the dense feed-forward part.
    pub(crate) intermediate: usize,
    pub(crate) vocabulary: usize,
    pub(crate) head: Head,
    pub(crate) context: usize,
    pub(crate) rope_theta: f64,
}

/// What distinguishes the families beyond their extents.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    /// Llama 3 with its rope scaling by `factor`.
    Llama { factor: f64 },
    /// Mistral without a sliding window.
    Mistral,
    /// Biases on q, k and v.
    Qwen2,
    /// Norms on q and k.
    Qwen3,
    /// Qwen3 with experts in every layer.
    Qwen3Moe { experts: usize, top: usize, width: usize },
}

/// Where the logits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// `embed_tokens` again.
    Tied,
    /// A matrix of its own.
    Own,
}

const QWEN3: Shape = Shape {
    name: "",
    family: Family::Qwen3,
    layers: 28,
    hidden: 1024,
    heads: 16,
    kv_heads: 8,
    head_dim: 128,
    intermediate: 3072,
    vocabulary: 151_936,
    head: Head::Tied,
    context: 40_960,
    rope_theta: 1e6,
};

const QWEN2: Shape = Shape { family: Family::Qwen2, context: 32_768, ..QWEN3 };

const LLAMA: Shape = Shape {
    name: "",
    family: Family::Llama { factor: 8.0 },
    layers: 32,
    hidden: 4096,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    intermediate: 14_336,
    vocabulary: 128_256,
    head: Head::Own,
    context: 131_072,
    rope_theta: 5e5,
};

/// Every known shape.
pub(crate) static SHAPES: [Shape; 11] = [
    Shape { name: "qwen3-0.6b", ..QWEN3 },
    Shape { name: "qwen3-1.7b", hidden: 2048, intermediate: 6144, ..QWEN3 },
    Shape { name: "qwen3-4b", layers: 36, hidden: 2560, heads: 32, intermediate: 9728, ..QWEN3 },
    Shape {
        name: "qwen3-8b",
        layers: 36,
        hidden: 4096,
        heads: 32,
        intermediate: 12_288,
        head: Head::Own,
        ..QWEN3
    },
    Shape {
        name: "qwen3-30b-a3b",
        family: Family::Qwen3Moe { experts: 128, top: 8, width: 768 },
        layers: 48,
        hidden: 2048,
        heads: 32,
        kv_heads: 4,
        intermediate: 6144,
        head: Head::Own,
        ..QWEN3
    },
    Shape {
        name: "qwen3moe-small",
        family: Family::Qwen3Moe { experts: 64, top: 8, width: 384 },
        layers: 12,
        kv_heads: 4,
        ..QWEN3
    },
    Shape {
        name: "qwen2.5-0.5b",
        layers: 24,
        hidden: 896,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        intermediate: 4864,
        ..QWEN2
    },
    Shape {
        name: "qwen2.5-7b",
        hidden: 3584,
        heads: 28,
        kv_heads: 4,
        intermediate: 18_944,
        vocabulary: 152_064,
        head: Head::Own,
        ..QWEN2
    },
    Shape { name: "llama-3.1-8b", ..LLAMA },
    Shape {
        name: "llama-3.2-1b",
        family: Family::Llama { factor: 32.0 },
        layers: 16,
        hidden: 2048,
        head_dim: 64,
        intermediate: 8192,
        head: Head::Tied,
        ..LLAMA
    },
    Shape {
        name: "mistral-7b",
        family: Family::Mistral,
        vocabulary: 32_768,
        context: 32_768,
        rope_theta: 1e6,
        ..LLAMA
    },
];

/// A vector or a matrix of the network, by the name that an MLX conversion gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All ones.
    Norm { name: String, len: usize },
    /// An additive bias.
    Bias { name: String, len: usize },
    /// `prefix.weight` and what quantisation adds; `experts` in front if stacked.
    Matrix { prefix: String, experts: Option<usize>, out: usize, inp: usize },
}

impl Part {
    /// Number of parameters.
    pub(crate) fn parameters(&self) -> u64 {
        match *self {
            Self::Norm { len, .. } | Self::Bias { len, .. } => len as u64,
            Self::Matrix { experts, out, inp, .. } => (experts.unwrap_or(1) * out * inp) as u64,
        }
    }
}

impl Shape {
    /// The shape of this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| shape.name == name)
    }

    /// `config.json` without `quantization`, spelled as on the hub.
    pub(crate) fn config(&self) -> Value {
        let (architecture, model_type) = match self.family {
            Family::Llama { .. } => ("LlamaForCausalLM", "llama"),
            Family::Mistral => ("MistralForCausalLM", "mistral"),
            Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Family::Qwen3Moe { .. } => ("Qwen3MoeForCausalLM", "qwen3_moe"),
        };
        let mut config = json!({
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.context,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": 1e-6,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.head == Head::Tied,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "vocab_size": self.vocabulary,
        });
        let own = match self.family {
            Family::Llama { factor } => json!({
                "attention_bias": false,
                "mlp_bias": false,
                "bos_token_id": 128_000,
                "eos_token_id": [128_001, 128_008, 128_009],
                "rms_norm_eps": 1e-5,
                "rope_scaling": {
                    "factor": factor,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                },
            }),
            Family::Mistral => {
                json!({"bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5, "sliding_window": null})
            }
            Family::Qwen2 => json!({
                "bos_token_id": 151_643,
                "eos_token_id": 151_645,
                "sliding_window": 32_768,
                "use_sliding_window": false,
            }),
            Family::Qwen3 => json!({
                "attention_bias": false,
                "bos_token_id": 151_643,
                "eos_token_id": 151_645,
                "sliding_window": null,
                "use_sliding_window": false,
            }),
            Family::Qwen3Moe { experts, top, width } => json!({
                "attention_bias": false,
                "bos_token_id": 151_643,
                "eos_token_id": 151_645,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
                "moe_intermediate_size": width,
                "norm_topk_prob": true,
                "num_experts": experts,
                "num_experts_per_tok": top,
                "sliding_window": null,
                "use_sliding_window": false,
            }),
        };
        if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
            config.extend(own);
            // Qwen2's configurations leave head_dim to hidden / heads.
            if matches!(self.family, Family::Qwen2) {
                config.shift_remove("head_dim");
            }
        }
        config
    }

    /// Every vector and matrix of the network.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let mut parts = vec![matrix("model.embed_tokens", self.vocabulary, self.hidden)];
        for layer in 0..self.layers {
            self.attention(&format!("model.layers.{layer}"), &mut parts);
            self.feed_forward(&format!("model.layers.{layer}.mlp"), &mut parts);
        }
        parts.push(norm("model.norm.weight", self.hidden));
        if self.head == Head::Own {
            parts.push(matrix("lm_head", self.vocabulary, self.hidden));
        }
        parts
    }

    fn attention(&self, layer: &str, parts: &mut Vec<Part>) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        for (projection, out) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
            let prefix = format!("{layer}.self_attn.{projection}");
            if matches!(self.family, Family::Qwen2) {
                parts.push(Part::Bias { name: format!("{prefix}.bias"), len: out });
            }
            parts.push(matrix(&prefix, out, self.hidden));
        }
        parts.push(matrix(&format!("{layer}.self_attn.o_proj"), self.hidden, q));
        if matches!(self.family, Family::Qwen3 | Family::Qwen3Moe { .. }) {
            parts.push(norm(&format!("{layer}.self_attn.q_norm.weight"), self.head_dim));
            parts.push(norm(&format!("{layer}.self_attn.k_norm.weight"), self.head_dim));
        }
        parts.push(norm(&format!("{layer}.input_layernorm.weight"), self.hidden));
        parts.push(norm(&format!("{layer}.post_attention_layernorm.weight"), self.hidden));
    }

    fn feed_forward(&self, mlp: &str, parts: &mut Vec<Part>) {
        let (stack, experts, width) = match self.family {
            Family::Qwen3Moe { experts, width, .. } => {
                parts.push(matrix(&format!("{mlp}.gate"), experts, self.hidden));
                (format!("{mlp}.switch_mlp"), Some(experts), width)
            }
            _ => (mlp.to_owned(), None, self.intermediate),
        };
        for (projection, out, inp) in [
            ("gate_proj", width, self.hidden),
            ("up_proj", width, self.hidden),
            ("down_proj", self.hidden, width),
        ] {
            parts.push(Part::Matrix { prefix: format!("{stack}.{projection}"), experts, out, inp });
        }
    }

    /// Layers that mlx-lm quantises differently from the rest: routers, at 8 bits.
    pub(crate) fn is_router(prefix: &str) -> bool {
        prefix.ends_with(".mlp.gate")
    }
}

fn matrix(prefix: &str, out: usize, inp: usize) -> Part {
    Part::Matrix { prefix: prefix.into(), experts: None, out, inp }
}

fn norm(name: &str, len: usize) -> Part {
    Part::Norm { name: name.into(), len }
}
