//! Damaged, incomplete, contradictory and hostile checkpoints: refused, with a message that says what is wrong where.

use std::path::Path;

use bessemer_weights::{
    DType, Format, LinearWeight, ModelFiles, OpenOptions, Quantisation, Tensor, Weights, WeightsError,
    dequantise, parse_safetensors_header,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A safetensors file with this header and `data` bytes of zeros.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A file of these tensors, one after the other.
fn tensors(list: &[(&str, &str, &[usize])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape) in list {
        let bits = match *dtype {
            "U8" => 8,
            "BF16" | "F16" | "I16" => 16,
            _ => 32,
        };
        let begin = end;
        end += shape.iter().product::<usize>() * bits / 8;
        header.insert((*name).into(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
    }
    file(&Value::Object(header).to_string(), end)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(config: &Value) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.with("config.json", config.to_string().as_bytes())
    }

    fn with(self, name: &str, bytes: &[u8]) -> Self {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self) -> Result<ModelFiles, WeightsError> {
        ModelFiles::open(&self.path().display().to_string(), &OpenOptions::default())
    }

    fn weights(&self) -> Weights {
        Weights::new(&self.open().unwrap()).unwrap()
    }
}

#[track_caller]
fn assert_mentions<T>(result: Result<T, WeightsError>, parts: &[&str]) {
    let Err(error) = result else { panic!("no error; expected one with {parts:?}") };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn broken_headers_are_refused_with_the_tensor_and_the_rule() {
    let good = tensors(&[("a", "F32", &[2, 2]), ("b", "BF16", &[3])]);
    assert_eq!(parse_safetensors_header("x.safetensors", &good).unwrap().tensors.len(), 2);
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let overlap = r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#;
    let gap = r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}}"#;
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["0 bytes", "too few"]),
        ("seven bytes", vec![1; 7], &["7 bytes", "too few"]),
        ("header cut off", good[..30].to_vec(), &["header claims", "only 30"]),
        (
            "huge header",
            file("{}", 0).into_iter().map(|_| 0xFF).collect(),
            &["18446744073709551615", "100 MB"],
        ),
        ("header too long", [&200_000_000u64.to_le_bytes()[..], b"{}"].concat(), &["200000000", "100 MB"]),
        ("no JSON", file("not json", 0), &["header is not valid", "JSON"]),
        ("no UTF-8", [&2u64.to_le_bytes()[..], &[0xFF, 0xFE]].concat(), &["UTF-8"]),
        ("a list", file("[]", 0), &["header is not valid"]),
        ("data cut off", good[..good.len() - 1].to_vec(), &["cut off", "\"b\""]),
        ("too much data", [&good[..], &[0]].concat(), &["last tensor \"b\"", "ends at"]),
        ("overlap", file(overlap, 12), &["\"b\"", "overlaps", "begins at 4, not at 8"]),
        ("gap", file(gap, 16), &["\"b\"", "gap", "begins at 12, not at 8"]),
        ("unknown type", file(&entry("F12", "[1]", "[0,4]"), 4), &["\"a\"", "F12", "dtype"]),
        ("negative extent", file(&entry("F32", "[-1]", "[0,4]"), 4), &["\"a\"", "malformed"]),
        ("size and shape", file(&entry("F32", "[3]", "[0,8]"), 8), &["\"a\"", "needs 12 bytes", "0 to 8"]),
        ("backwards", file(&entry("F32", "[1]", "[4,0]"), 4), &["\"a\""]),
        ("overflow", file(&entry("F32", "[4294967296,4294967296]", "[0,8]"), 8), &["\"a\"", "more elements"]),
        ("no offsets", file(r#"{"a":{"dtype":"F32","shape":[1]}}"#, 4), &["\"a\"", "malformed"]),
    ];
    for (what, bytes, parts) in cases {
        let result = parse_safetensors_header("x.safetensors", &bytes);
        let message = result.err().unwrap_or_else(|| panic!("{what}: no error")).to_string();
        for part in parts.iter().chain(&["x.safetensors", "download it again"]) {
            assert!(message.contains(part), "{what}: {part:?} is not in: {message}");
        }
    }
}

#[test]
fn folders_that_do_not_hold_together_are_refused() {
    let single = tensors(&[("a", "F32", &[2])]);
    let index = |map: Value| json!({"metadata": {}, "weight_map": map}).to_string().into_bytes();
    let config = json!({});
    let folder = || Folder::new(&config);
    let indexed = |map: Value| folder().with("model.safetensors.index.json", &index(map));

    let empty = tempfile::tempdir().unwrap();
    assert_mentions(
        ModelFiles::open(&empty.path().display().to_string(), &OpenOptions::default()),
        &["config.json"],
    );
    assert_mentions(folder().open(), &["neither model.safetensors nor", "safetensors format"]);
    assert_mentions(folder().with("config.json", b"{").open(), &["config.json", "not valid JSON", "line 1"]);
    assert_mentions(
        folder().with("model.safetensors", &single[..20]).open(),
        &["model.safetensors", "header claims"],
    );
    assert_mentions(folder().with("model.safetensors", b"").open(), &["model.safetensors", "0 bytes"]);
    assert_mentions(
        indexed(json!({"a": "model-1.safetensors"})).open(),
        &["index.json", "\"model-1.safetensors\"", "not in the folder", "Download"],
    );
    for shard in
        ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", "x.bin", "a\\b.safetensors"]
    {
        assert_mentions(indexed(json!({"a": shard})).open(), &["index.json", "\"a\"", "same folder"]);
    }
    assert_mentions(indexed(json!({"a": 3})).open(), &["\"a\"", "not to a file name"]);
    assert_mentions(indexed(json!({})).open(), &["weight_map", "no tensor"]);
    assert_mentions(indexed(json!([1])).open(), &["`weight_map` must be an object"]);
    assert_mentions(
        indexed(json!({"a": "m.safetensors", "b": "m.safetensors"})).with("m.safetensors", &single).open(),
        &["\"b\"", "\"m.safetensors\"", "does not hold it"],
    );
    assert_mentions(
        indexed(json!({"b": "m.safetensors"}))
            .with("m.safetensors", &tensors(&[("a", "U8", &[1]), ("b", "U8", &[1])]))
            .open(),
        &["\"a\"", "\"m.safetensors\"", "not listed"],
    );
    let two = json!({"a": "m1.safetensors", "b": "m2.safetensors"});
    assert_mentions(
        indexed(two.clone())
            .with("m1.safetensors", &single)
            .with("m2.safetensors", &tensors(&[("a", "F32", &[1]), ("b", "F32", &[1])]))
            .open(),
        &["\"a\"", "both", "m1.safetensors", "m2.safetensors"],
    );
    assert_mentions(
        indexed(two)
            .with("m1.safetensors", &tensors(&[("b", "F32", &[1])]))
            .with("m2.safetensors", &single)
            .open(),
        &["\"a\"", "but the tensor is in"],
    );
}

#[test]
fn names_that_mean_nothing_are_explained() {
    for name in ["nonsense", "./missing", "/missing/folder", "a/b/c", ""] {
        assert_mentions(
            ModelFiles::open(name, &OpenOptions::default()),
            &[&format!("{name:?}"), "default", "org/name"],
        );
    }
}

#[test]
fn plain_tensors_must_have_the_shape_and_type_of_the_network() {
    let folder = Folder::new(&json!({})).with(
        "model.safetensors",
        &tensors(&[
            ("p.weight", "BF16", &[4, 32]),
            ("n.weight", "F32", &[7]),
            ("i.weight", "I32", &[4]),
            ("packed.weight", "U32", &[4, 4]),
            ("e.switch_mlp.up.weight", "F16", &[2, 4, 32]),
        ]),
    );
    let weights = folder.weights();
    assert!(matches!(weights.linear("p", 4, 32), Ok(LinearWeight::Plain(_))));
    assert!(weights.experts("e.switch_mlp.up", 2, 4, 32).is_ok());
    assert_mentions(weights.linear("p", 8, 32), &["\"p.weight\"", "[4, 32]", "[8, 32]"]);
    assert_mentions(weights.linear("q", 8, 32), &["\"q.weight\"", "missing"]);
    assert_mentions(weights.vector("n.weight", 8), &["\"n.weight\"", "[7]", "[8]"]);
    assert_mentions(weights.vector("i.weight", 4), &["\"i.weight\"", "I32", "F32, F16 or BF16"]);
    assert_mentions(weights.linear("packed", 4, 4), &["\"packed.scales\"", "missing", "packed"]);
    assert_mentions(weights.experts("e.switch_mlp.up", 3, 4, 32), &["[2, 4, 32]", "[3, 4, 32]"]);
    assert_mentions(
        weights.experts("e.switch_mlp.down", 2, 4, 32),
        &["\"e.switch_mlp.down.weight\"", "missing"],
    );
    assert_eq!(weights.optional_vector("p.bias", 4).unwrap(), None);
    assert_mentions(
        weights.finish(&|_| false),
        &["3 tensors", "\"i.weight\"", "\"n.weight\"", "\"packed.weight\""],
    );
    weights.vector("n.weight", 7).unwrap();
    weights.finish(&|name| name.starts_with("i.") || name.starts_with("packed")).unwrap();
}

#[test]
fn one_expert_that_differs_is_named() {
    let folder = Folder::new(&json!({})).with(
        "model.safetensors",
        &tensors(&[
            ("l.experts.0.up.weight", "F16", &[4, 8]),
            ("l.experts.1.up.weight", "BF16", &[4, 8]),
            ("l.experts.0.down.weight", "F16", &[8, 4]),
        ]),
    );
    let weights = folder.weights();
    assert_mentions(weights.experts("l.switch_mlp.up", 2, 4, 8), &["\"l.experts.1.up.weight\"", "BF16"]);
    assert_mentions(
        weights.experts("l.switch_mlp.down", 2, 8, 4),
        &["\"l.experts.1.down.weight\"", "missing"],
    );
    // However many experts config.json claims, memory is only taken for those that are there.
    for claimed in [1 << 40, usize::MAX] {
        assert_mentions(
            weights.experts("l.switch_mlp.down", claimed, 8, 4),
            &["\"l.experts.1.down.weight\"", "missing"],
        );
    }
}

#[test]
fn quantised_layers_must_be_complete_and_fit_their_format() {
    let config = json!({"quantization": {"group_size": 64, "bits": 4, "mode": "affine",
        "mx": {"mode": "mxfp4", "group_size": 32, "bits": 4}, "off": false}});
    let folder = Folder::new(&config).with(
        "model.safetensors",
        &tensors(&[
            ("a.weight", "U32", &[2, 16]),
            ("a.scales", "BF16", &[2, 2]),
            ("a.biases", "BF16", &[2, 2]),
            ("nobias.weight", "U32", &[2, 16]),
            ("nobias.scales", "BF16", &[2, 2]),
            ("noscales.weight", "U32", &[2, 16]),
            ("noscales.biases", "BF16", &[2, 2]),
            ("float.weight", "F32", &[2, 16]),
            ("float.scales", "BF16", &[2, 2]),
            ("bytes.weight", "U32", &[2, 16]),
            ("bytes.scales", "U8", &[2, 2]),
            ("off.weight", "U32", &[2, 16]),
            ("off.scales", "BF16", &[2, 2]),
            ("mx.weight", "U32", &[2, 16]),
            ("mx.scales", "F32", &[2, 4]),
        ]),
    );
    let weights = folder.weights();
    assert!(weights.linear("a", 2, 128).is_ok());
    assert_mentions(weights.linear("a", 2, 96), &["\"a\"", "group_size 64", "96 inputs", "divide"]);
    assert_mentions(weights.linear("a", 2, 256), &["\"a.weight\"", "[2, 16]", "[2, 32]", "4 bits"]);
    assert_mentions(weights.linear("a", 3, 128), &["\"a.weight\"", "[3, 16]"]);
    assert_mentions(weights.linear("nobias", 2, 128), &["\"nobias.biases\"", "missing"]);
    assert_mentions(weights.linear("noscales", 2, 128), &["\"noscales.scales\"", "missing"]);
    assert_mentions(weights.linear("float", 2, 128), &["\"float.weight\"", "F32", "U32"]);
    assert_mentions(weights.linear("bytes", 2, 128), &["\"bytes.scales\"", "U8", "F32, F16 or BF16"]);
    assert_mentions(weights.linear("off", 2, 128), &["\"off\"", "\"off.scales\"", "Restore"]);
    assert_mentions(weights.linear("mx", 2, 128), &["\"mx.scales\"", "F32", "U8"]);
    let plain = Folder::new(&json!({}))
        .with("model.safetensors", &tensors(&[("a.weight", "U32", &[2, 16]), ("a.scales", "BF16", &[2, 2])]));
    assert_mentions(plain.weights().linear("a", 2, 128), &["quantization", "\"a.scales\"", "absent"]);
}

#[test]
fn quantisation_that_nobody_can_read_is_refused() {
    let refused = |quantisation: Value, parts: &[&str]| {
        assert_mentions(Quantisation::from_config(&json!({"quantization": quantisation})), parts);
    };
    refused(json!(4), &["quantization", "4", "must be an object"]);
    refused(json!({"bits": 7, "group_size": 64}), &["quantization.bits", "7", "one of [2, 3, 4, 5, 6, 8]"]);
    refused(json!({"bits": 4, "group_size": 48}), &["quantization.group_size", "48", "[32, 64, 128]"]);
    refused(json!({"bits": "4", "group_size": 64}), &["quantization.bits", "\"4\""]);
    refused(json!({"bits": 4}), &["quantization.group_size", "absent"]);
    refused(json!({"bits": -4, "group_size": 64}), &["-4"]);
    refused(json!({"bits": 4, "group_size": 16, "mode": "nvfp4"}), &["quantization.mode", "nvfp4", "mxfp4"]);
    refused(json!({"bits": 8, "group_size": 32, "mode": "mxfp4"}), &["quantization.bits", "8", "[4]"]);
    refused(json!({"bits": 4, "group_size": 64, "mode": 3}), &["quantization.mode", "3"]);
    refused(json!({"bits": 4, "group_size": 64, "a.b": {"bits": 9}}), &["quantization.a.b.bits", "9"]);
    assert_mentions(
        Quantisation::from_config(&json!({"quantization_config": {"quant_method": "gptq", "bits": 4}})),
        &["quantization_config.quant_method", "gptq", "mlx_lm.convert"],
    );
    assert_eq!(Quantisation::from_config(&json!({"quantization": null})).unwrap(), Quantisation::default());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_safetensors_header("fuzz", &bytes);
    }

    /// Bytes flipped in a real header reach further than noise does; what is accepted must lie within the file.
    #[test]
    fn damaged_headers_never_panic_and_ranges_stay_inside(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 0..6),
        cut in 0usize..400,
    ) {
        let mut bytes = tensors(&[("a", "F32", &[2, 3]), ("b", "BF16", &[4]), ("c", "U8", &[9])]);
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        bytes.truncate(cut.max(8));
        if let Ok(header) = parse_safetensors_header("fuzz", &bytes) {
            for entry in header.tensors.values() {
                prop_assert!(bytes.get(entry.range.clone()).is_some());
            }
        }
    }

    #[test]
    fn arbitrary_header_text_never_panics(
        shape in prop::collection::vec(any::<u64>(), 0..4),
        begin in any::<u64>(),
        end in any::<u64>(),
        dtype in prop::sample::select(vec!["F32", "BF16", "F4", "F6_E2M3", "C64", "X"]),
    ) {
        let header = json!({"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}});
        let _ = parse_safetensors_header("fuzz", &file(&header.to_string(), 16));
    }

    #[test]
    fn arbitrary_quantisation_never_panics(text in r#"[{}\[\]",:0-9a-z_ ]{0,60}"#, bits in any::<i64>(), group in any::<i64>()) {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let _ = Quantisation::from_config(&json!({"quantization": value}));
        }
        let entries = json!({"bits": bits, "group_size": group, "a": {"bits": group, "group_size": bits}});
        let _ = Quantisation::from_config(&json!({"quantization": entries}));
    }
}

#[test]
fn dequantise_refuses_formats_that_do_not_exist() {
    let tensor = |dtype, shape: Vec<usize>, bytes: usize| Tensor {
        name: "w".into(),
        dtype,
        shape,
        bytes: vec![0; bytes].into(),
    };
    for (bits, group) in [(0, 64), (7, 64), (255, 64), (4, 0), (4, usize::MAX)] {
        let weight = LinearWeight::Quantised {
            format: Format::Affine { bits, group },
            out: 1,
            inp: usize::MAX,
            experts: None,
            codes: tensor(DType::U32, vec![1, 8], 32),
            scales: tensor(DType::F32, vec![1, 1], 4),
            biases: None,
        };
        assert_mentions(dequantise(&weight), &["w is", "bits must be", "32, 64, 128"]);
    }
}

#[test]
fn tensors_of_any_alignment_are_read() {
    // One byte in front moves the floats to an odd address.
    let header = r#"{"odd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#;
    let mut bytes = file(header, 9);
    let end = bytes.len();
    bytes[end - 8..end - 4].copy_from_slice(&1.5f32.to_le_bytes());
    bytes[end - 4..].copy_from_slice(&(-2.0f32).to_le_bytes());
    let folder = Folder::new(&json!({})).with("model.safetensors", &bytes);
    assert_eq!(folder.weights().vector("f", 2).unwrap(), [1.5, -2.0]);
}
