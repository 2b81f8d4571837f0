use serde_json::{Value, json};

use super::*;

fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 500000.0
    })
}

fn with(mut config: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

fn message(changes: Value) -> String {
    ModelConfig::from_hf(&with(llama(), changes)).expect_err("must be refused").to_string()
}

#[test]
fn both_spellings_of_rope_say_the_same() {
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024 });
    let old = ModelConfig::from_hf(&with(llama(), json!({ "rope_scaling": yarn }))).unwrap();
    let mut parameters = yarn.clone();
    parameters["rope_theta"] = json!(500000.0);
    let mut new = with(llama(), json!({ "rope_parameters": parameters }));
    new.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(old, ModelConfig::from_hf(&new).unwrap());
    assert!(matches!(old.rope.scaling, RopeScaling::Yarn { factor: 4.0, .. }));
}

#[test]
fn windows_follow_the_family() {
    let slide = json!({ "sliding_window": 32 });
    let windows = |model_type: &str, more: Value| {
        let config = with(with(with(llama(), slide.clone()), json!({ "model_type": model_type })), more);
        ModelConfig::from_hf(&config).unwrap().windows
    };
    assert_eq!(windows("llama", json!({})), [None, None]);
    assert_eq!(windows("mistral", json!({})), [Some(32), Some(32)]);
    assert_eq!(windows("qwen2", json!({})), [None, None], "present but off");
    assert_eq!(
        windows("qwen2", json!({ "use_sliding_window": true, "max_window_layers": 1 })),
        [None, Some(32)],
        "the layers from max_window_layers on"
    );
    let types = json!({ "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"] });
    assert_eq!(windows("qwen3", types), [Some(32), None]);
    let experts = json!({
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "use_sliding_window": true, "max_window_layers": 1
    });
    assert_eq!(
        windows("qwen3_moe", experts),
        [Some(32), Some(32)],
        "every layer, as transformers 5 computes"
    );
}

#[test]
fn a_window_that_is_absent_is_the_default_and_null_is_none() {
    let windows = |more: Value| {
        ModelConfig::from_hf(&with(with(llama(), json!({ "model_type": "mistral" })), more)).unwrap().windows
    };
    assert_eq!(windows(json!({})), [Some(4096), Some(4096)]);
    assert_eq!(windows(json!({ "sliding_window": null })), [None, None]);
}

#[test]
fn qwen_slides_from_layer_28_unless_told_otherwise() {
    let slide = json!({ "model_type": "qwen2", "num_hidden_layers": 30, "use_sliding_window": true, "sliding_window": 8 });
    let windows = ModelConfig::from_hf(&with(llama(), slide)).unwrap().windows;
    assert_eq!(windows.iter().position(Option::is_some), Some(28));
}

#[test]
fn defaults_are_hugging_faces() {
    let mut config = llama();
    for key in ["num_key_value_heads", "head_dim", "rope_theta", "rms_norm_eps"] {
        config.as_object_mut().unwrap().remove(key);
    }
    let config = ModelConfig::from_hf(&config).unwrap();
    assert_eq!((config.kv_heads, config.head_dim, config.rope.theta), (4, 16, 10_000.0));
    assert!(!config.tied);
    assert_eq!(config.rope.rotated, 16);
    let mut qwen3 = with(llama(), json!({ "model_type": "qwen3" }));
    qwen3.as_object_mut().unwrap().remove("head_dim");
    assert_eq!(ModelConfig::from_hf(&qwen3).unwrap().head_dim, 128, "not hidden_size / num_attention_heads");
}

#[test]
fn experts_sit_where_the_configuration_says() {
    let moe = json!({
        "model_type": "qwen3_moe", "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 24,
        "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": true
    });
    let config = ModelConfig::from_hf(&with(llama(), moe.clone())).unwrap();
    assert_eq!(config.moe.as_ref().unwrap().sparse, [false, true, false, false]);

    let mut new = moe;
    let experts = new.as_object_mut().unwrap().remove("num_experts").unwrap();
    let new = with(with(llama(), new), json!({ "num_local_experts": experts }));
    assert_eq!(config, ModelConfig::from_hf(&new).unwrap(), "transformers 5 renames num_experts");
}

#[test]
fn wrong_values_are_named_with_rule_and_cure() {
    let cases = [
        (json!({ "model_type": "gpt2" }), ["model_type", "llama, mistral", "gpt2"]),
        (json!({ "hidden_size": 0 }), ["hidden_size", "from 1 to", "0"]),
        (json!({ "hidden_size": -5 }), ["hidden_size", "whole number", "-5"]),
        (json!({ "hidden_size": 1e30 }), ["hidden_size", "whole number", "1e"]),
        (json!({ "hidden_size": "64" }), ["hidden_size", "whole number", "\"64\""]),
        (json!({ "vocab_size": null }), ["vocab_size", "from 1 to", "nothing"]),
        (json!({ "num_key_value_heads": 3 }), ["num_key_value_heads", "divide num_attention_heads (4)", "3"]),
        (json!({ "head_dim": 12 }), ["head_dim", "multiple of 8", "12"]),
        (json!({ "hidden_act": "gelu" }), ["hidden_act", "silu", "gelu"]),
        (json!({ "rms_norm_eps": -1 }), ["rms_norm_eps", "above 0", "-1"]),
        (json!({ "rms_norm_eps": 1e39 }), ["rms_norm_eps", "float32", "1e+39"]),
        (json!({ "rms_norm_eps": 1e-60 }), ["rms_norm_eps", "float32", "1e-60"]),
        (json!({ "tie_word_embeddings": "yes" }), ["tie_word_embeddings", "true or false", "yes"]),
        (json!({ "eos_token_id": -1 }), ["eos_token_id", "token id", "-1"]),
        (
            json!({ "rope_scaling": { "rope_type": "dynamic", "factor": 2 } }),
            ["rope_scaling.rope_type", "yarn", "dynamic"],
        ),
        (
            json!({ "rope_scaling": { "type": "linear" } }),
            ["rope_scaling.factor", "must be given", "nothing"],
        ),
        (json!({ "rope_scaling": [] }), ["rope_scaling", "an object", "a list"]),
        (json!({ "partial_rotary_factor": 2.0 }), ["partial_rotary_factor", "even number", "2"]),
    ];
    for (changes, parts) in cases {
        let message = message(changes.clone());
        for part in parts {
            assert!(message.contains(part), "{changes}: \"{message}\" does not say \"{part}\"");
        }
    }
    let error = ModelConfig::from_hf(&json!([1])).unwrap_err().to_string();
    assert!(error.contains("JSON object"), "{error}");
}

proptest::proptest! {
    /// Whatever stands under a key, reading ends in a configuration or an error.
    #[test]
    fn no_value_panics(key in 0usize..16, number in proptest::num::f64::ANY, text in ".{0,8}") {
        let keys = [
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta",
            "sliding_window", "eos_token_id", "layer_types", "rope_scaling", "mlp_only_layers", "model_type",
        ];
        for value in [json!(number), json!(text), json!([number, text]), json!({ "rope_type": text, "factor": number })] {
            let mut config = llama();
            config[keys[key]] = value;
            let _ = ModelConfig::from_hf(&config);
        }
    }
}
