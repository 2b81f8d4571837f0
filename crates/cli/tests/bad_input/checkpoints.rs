//! Model folders that are damaged, incomplete, contradictory or of another kind.

use serde_json::{Value, json};

use crate::document::{Row, Section};
use crate::folder::Folder;
use crate::program;

/// Runs every case.
pub fn section() -> Section {
    let configured = configurations().into_iter().map(|(key, value)| {
        let folder = Folder::plain();
        let input = match &value {
            Value::Null => format!("config.json without `{key}`"),
            value => format!("config.json with `\"{key}\": {value}`"),
        };
        folder.configure(key, value);
        row(input, &folder)
    });
    let spoiled = FILES.iter().map(|case| {
        let folder = case.start.folder();
        (case.spoil)(&folder);
        row(case.input.to_owned(), &folder)
    });
    Section {
        title: "Model folders",
        intro: "`bessemer generate --model ./model --chat Hello`, where the folder was sound but for this:",
        columns: ["input", "exit code", "message"],
        rows: configured.chain(spoiled).collect(),
    }
}

fn row(input: String, folder: &Folder) -> Row {
    let arguments = ["generate", "--model", "./model", "--max-tokens", "1", "--chat", "Hello"];
    let (status, answer) = program::failure(folder.root(), &arguments);
    Row { input, status, answer }
}

fn configurations() -> Vec<(&'static str, Value)> {
    vec![
        ("model_type", Value::Null),
        ("model_type", json!("bert")),
        ("model_type", json!("qwen3")),
        ("hidden_size", Value::Null),
        ("hidden_size", json!(0)),
        ("hidden_size", json!("64")),
        ("hidden_size", json!(1e9)),
        ("num_hidden_layers", json!(1)),
        ("num_hidden_layers", json!(3)),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_attention_heads", json!(-4)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(12)),
        ("intermediate_size", json!(128)),
        ("vocab_size", json!(600)),
        ("max_position_embeddings", json!(0.5)),
        ("hidden_act", json!("gelu")),
        ("rms_norm_eps", json!(-1e-5)),
        ("rms_norm_eps", json!(1e39)),
        ("rope_theta", json!("large")),
        ("rope_scaling", json!({"rope_type": "longrope"})),
        ("rope_scaling", json!({"rope_type": "linear"})),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}),
        ),
        ("rope_scaling", json!([2])),
        ("partial_rotary_factor", json!(1.5)),
        ("tie_word_embeddings", json!("yes")),
        ("eos_token_id", json!([2, -1])),
        ("quantization", json!({"bits": 7, "group_size": 64})),
        ("quantization", json!({"bits": 4, "group_size": 48})),
        ("quantization", json!({"bits": 4, "group_size": 16, "mode": "nvfp4"})),
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4})),
    ]
}

/// A case that changes files.
struct Case {
    input: &'static str,
    start: Start,
    spoil: fn(&Folder),
}

#[derive(Clone, Copy)]
enum Start {
    Plain,
    Quantised,
}

impl Start {
    fn folder(self) -> Folder {
        match self {
            Self::Plain => Folder::plain(),
            Self::Quantised => Folder::quantised(),
        }
    }
}

const fn case(input: &'static str, spoil: fn(&Folder)) -> Case {
    Case { input, start: Start::Plain, spoil }
}

const fn quantised(input: &'static str, spoil: fn(&Folder)) -> Case {
    Case { input, start: Start::Quantised, spoil }
}

const FILES: &[Case] = &[
    case("no config.json", |f| f.remove("config.json")),
    case("config.json cut off", |f| f.write("config.json", r#"{"model_type": "llama","#)),
    case("config.json that is a list", |f| f.write("config.json", "[]")),
    case("no model.safetensors", |f| f.remove("model.safetensors")),
    case("model.safetensors empty", |f| f.write("model.safetensors", "")),
    case("model.safetensors cut off in its header", |f| {
        f.write("model.safetensors", &f.read("model.safetensors")[..99])
    }),
    case("model.safetensors cut off in its data", |f| {
        f.write("model.safetensors", &f.read("model.safetensors")[..300_000]);
    }),
    case("model.safetensors with a byte too many", |f| {
        f.write("model.safetensors", [f.read("model.safetensors"), vec![0]].concat());
    }),
    case("model.safetensors that is a web page", |f| {
        f.write("model.safetensors", "<!DOCTYPE html><html></html>")
    }),
    case("model.safetensors with a header of 2 bytes that are no JSON", |f| {
        f.write("model.safetensors", [&2u64.to_le_bytes()[..], b"hi"].concat());
    }),
    case("a tensor of type I16", |f| f.patch_weights(r#""BF16""#, r#""I16" "#)),
    case("a tensor of a type that nobody knows", |f| f.patch_weights(r#""BF16""#, r#""BF17""#)),
    case("a tensor under a wrong name", |f| f.patch_weights("layers.1.mlp.up_proj", "layers.1.mlp.up_prok")),
    case("an index that names a shard which is not there", |f| {
        let index = json!({"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}});
        f.write("model.safetensors.index.json", index.to_string());
    }),
    case("an index that names a file outside the folder", |f| {
        let index = json!({"weight_map": {"lm_head.weight": "../other/model.safetensors"}});
        f.write("model.safetensors.index.json", index.to_string());
    }),
    case("an index that leaves tensors out", |f| {
        let index = json!({"weight_map": {"lm_head.weight": "model.safetensors"}});
        f.write("model.safetensors.index.json", index.to_string());
    }),
    quantised("quantised tensors, but config.json without `quantization`", |f| {
        f.configure("quantization", Value::Null);
        f.configure("quantization_config", Value::Null);
    }),
    quantised("groups of 32, but config.json says 64", |f| {
        f.configure("quantization", json!({"bits": 4, "group_size": 64}));
    }),
    quantised("4 bits, but config.json says 8", |f| {
        f.configure("quantization", json!({"bits": 8, "group_size": 32}))
    }),
    quantised("affine, but config.json says mxfp4", |f| {
        f.configure("quantization", json!({"bits": 4, "group_size": 32, "mode": "mxfp4"}));
    }),
    case("no tokenizer.json", |f| f.remove("tokenizer.json")),
    case("tokenizer.json that is no tokenizer", |f| f.write("tokenizer.json", "{}")),
    case("tokenizer.json cut off", |f| f.write("tokenizer.json", &f.read("tokenizer.json")[..500])),
    case("no chat_template.jinja", |f| f.remove("chat_template.jinja")),
    case("chat_template.jinja with a loop that never ends", |f| {
        f.write("chat_template.jinja", "{% for m in messages %}")
    }),
    case("chat_template.jinja that looks into nothing", |f| {
        f.write("chat_template.jinja", "{{ nobody.name }}")
    }),
    case("chat_template.jinja that refuses the dialogue", |f| {
        f.write("chat_template.jinja", "{{ raise_exception('roles must alternate') }}");
    }),
    case("chat_template.jinja that prints without end", |f| {
        f.write(
            "chat_template.jinja",
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
        );
    }),
    case("chat_template.jinja that is not UTF-8", |f| f.write("chat_template.jinja", [0xff, 0xfe])),
];
