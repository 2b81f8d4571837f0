//! The checkpoints and arrays of `tests/golden`, written by transformers, mlx-lm and mlx.

use std::path::{Path, PathBuf};

use bessemer_weights::{
    DType, Format, LinearWeight, ModelFiles, OpenOptions, Tensor, Weights, dequantise,
    parse_safetensors_header,
};
use serde_json::Value;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["models", "quantised"]
        .iter()
        .flat_map(|kind| std::fs::read_dir(golden(kind)).unwrap())
        .map(|entry| entry.unwrap().path().join("model"))
        .collect();
    folders.sort();
    folders
}

/// Takes every tensor of a decoder as its config.json implies it, and returns the sum of all values so that the bytes
/// are really read.
fn take_all(name: &str, files: &ModelFiles) -> f64 {
    let weights = Weights::new(files).unwrap();
    let number = |key: &str| files.config.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let hidden = number("hidden_size").unwrap();
    let heads = number("num_attention_heads").unwrap();
    let kv_heads = number("num_key_value_heads").unwrap();
    let head_dim = number("head_dim").unwrap_or(hidden / heads);
    let wide = number("intermediate_size").unwrap();
    let vocab = number("vocab_size").unwrap();
    let mut sum = 0.0;
    let mut matrix = |weight: LinearWeight<'_>, len: usize| {
        let values = dequantise(&weight).unwrap();
        assert_eq!(values.len(), len, "{name}");
        assert!(values.iter().all(|v| v.is_finite()), "{name}");
        sum += values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    };
    let linear =
        |prefix: &str, out, inp| weights.linear(prefix, out, inp).unwrap_or_else(|e| panic!("{name}: {e}"));
    matrix(linear("model.embed_tokens", vocab, hidden), vocab * hidden);
    if weights.contains("lm_head.weight") {
        matrix(linear("lm_head", vocab, hidden), vocab * hidden);
    }
    weights.vector("model.norm.weight", hidden).unwrap();
    for layer in 0..number("num_hidden_layers").unwrap() {
        let at = |rest: &str| format!("model.layers.{layer}.{rest}");
        weights.vector(&at("input_layernorm.weight"), hidden).unwrap();
        weights.vector(&at("post_attention_layernorm.weight"), hidden).unwrap();
        weights.optional_vector(&at("self_attn.q_norm.weight"), head_dim).unwrap();
        weights.optional_vector(&at("self_attn.k_norm.weight"), head_dim).unwrap();
        for (projection, heads) in [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)] {
            let prefix = at(&format!("self_attn.{projection}"));
            matrix(linear(&prefix, heads * head_dim, hidden), heads * head_dim * hidden);
            weights.optional_vector(&format!("{prefix}.bias"), heads * head_dim).unwrap();
        }
        matrix(linear(&at("self_attn.o_proj"), hidden, heads * head_dim), heads * head_dim * hidden);
        if weights.contains(&at("mlp.gate.weight")) {
            let experts = number("num_experts").unwrap();
            let wide = number("moe_intermediate_size").unwrap();
            matrix(linear(&at("mlp.gate"), experts, hidden), experts * hidden);
            for (projection, out, inp) in
                [("gate_proj", wide, hidden), ("up_proj", wide, hidden), ("down_proj", hidden, wide)]
            {
                let prefix = at(&format!("mlp.switch_mlp.{projection}"));
                let stack = weights.experts(&prefix, experts, out, inp).unwrap();
                matrix(stack, experts * out * inp);
            }
        } else {
            for (projection, out, inp) in
                [("gate_proj", wide, hidden), ("up_proj", wide, hidden), ("down_proj", hidden, wide)]
            {
                matrix(linear(&at(&format!("mlp.{projection}")), out, inp), out * inp);
            }
        }
        weights.release(&at("self_attn.q_proj"));
        matrix(linear(&at("self_attn.q_proj"), heads * head_dim, hidden), heads * head_dim * hidden);
    }
    weights.finish(&|_| false).unwrap_or_else(|e| panic!("{name}: {e}"));
    sum
}

#[test]
fn every_folder_opens_and_every_tensor_is_taken() {
    let folders = folders();
    assert!(folders.len() >= 21, "golden folders are missing: {folders:?}");
    for folder in folders {
        let name = folder.display().to_string();
        let files =
            ModelFiles::open(&name, &OpenOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(files.tokenizer_json.is_some() && files.generation_config.is_some(), "{name}");
        assert!(files.bytes_on_disk > 100_000, "{name}");
        assert!(take_all(&name, &files) > 1000.0, "{name}");
    }
}

#[test]
fn embedded_models_open_and_every_tensor_is_taken() {
    for name in ["default", "storyteller", "storyteller-draft"] {
        let files = ModelFiles::open(name, &OpenOptions::default()).unwrap();
        assert!(files.chat_template.as_deref().is_some_and(|t| t.contains("im_start")), "{name}");
        assert!(files.tokenizer_json.is_some(), "{name}");
        assert!(take_all(name, &files) > 1000.0, "{name}");
    }
    let default = ModelFiles::open("default", &OpenOptions::default()).unwrap();
    assert_eq!(default.config["model_type"], "qwen3_moe");
}

#[test]
fn formats_follow_the_overrides() {
    let format = |folder: &str, prefix: &str| {
        let name = golden(&format!("quantised/{folder}/model")).display().to_string();
        let files = ModelFiles::open(&name, &OpenOptions::default()).unwrap();
        Weights::new(&files).unwrap().quantisation().format(prefix)
    };
    let affine = |bits, group| Some(Format::Affine { bits, group });
    assert_eq!(format("llama_mixed", "model.layers.0.mlp.down_proj"), affine(8, 32));
    assert_eq!(format("llama_mixed", "model.layers.0.self_attn.v_proj"), affine(6, 64));
    assert_eq!(format("llama_mixed", "model.layers.0.self_attn.q_proj"), affine(4, 64));
    assert_eq!(format("qwen3_moe_mxfp4", "model.layers.1.mlp.gate"), affine(8, 64));
    assert_eq!(format("qwen3_moe_mxfp4", "model.layers.1.mlp.switch_mlp.up_proj"), Some(Format::Mxfp4));

    let name = golden("quantised/llama_mixed/model").display().to_string();
    let files = ModelFiles::open(&name, &OpenOptions::default()).unwrap();
    let weights = Weights::new(&files).unwrap();
    let plain = weights.linear("model.layers.1.self_attn.o_proj", 128, 128).unwrap();
    assert!(matches!(plain, LinearWeight::Plain(t) if t.dtype == DType::BF16));
}

#[test]
fn dequantised_values_are_those_of_mlx() {
    let bytes = std::fs::read(golden("ops/quantised_matmul.safetensors")).unwrap();
    let header = parse_safetensors_header("quantised_matmul", &bytes).unwrap();
    let read = |name: String| {
        let entry = header.tensors.get(&name)?;
        Some(Tensor {
            name,
            dtype: entry.info.dtype,
            shape: entry.info.shape.clone(),
            bytes: bytes[entry.range.clone()].into(),
        })
    };
    let about: Value =
        serde_json::from_slice(&std::fs::read(golden("ops/quantised_matmul.json")).unwrap()).unwrap();
    let tolerance = about["dequantised_max_abs"].as_f64().unwrap() as f32;
    let cases = about["cases"].as_array().unwrap();
    assert!(cases.len() >= 16);
    for case in cases {
        let key = case["key"].as_str().unwrap();
        let number = |name: &str| case[name].as_u64().unwrap() as usize;
        let format = match case["mode"].as_str().unwrap() {
            "affine" => Format::Affine { bits: number("bits") as u8, group: number("group_size") },
            _ => Format::Mxfp4,
        };
        let weight = LinearWeight::Quantised {
            format,
            out: number("n"),
            inp: number("k"),
            experts: None,
            codes: read(format!("{key}.weight")).unwrap(),
            scales: read(format!("{key}.scales")).unwrap(),
            biases: read(format!("{key}.biases")),
        };
        let values = dequantise(&weight).unwrap();
        assert_eq!(values.len(), number("n") * number("k"));
        let expected = read(format!("{key}.dequantised_rows_0_4")).unwrap().to_f32().unwrap();
        assert_eq!(expected.len(), 4 * number("k"));
        for (i, (value, expected)) in values.iter().zip(&expected).enumerate() {
            assert!((value - expected).abs() <= tolerance, "{key}[{i}]: {value} instead of {expected}");
        }
    }
}
