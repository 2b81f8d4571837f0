//! `logits`, `perplexity`, `bench`, `info`: numbers against the oracle, and fields by their names.

use safetensors::SafeTensors;

use crate::run::{bessemer, oracle, oracle_json};

#[test]
fn logits_and_greedy_tokens_of_a_golden_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    let model = "golden/models/qwen3_moe";
    let arguments = [
        "logits".as_ref(),
        "--exact".as_ref(),
        "--greedy=64".as_ref(),
        "--model".as_ref(),
        oracle(&format!("{model}/model")).into_os_string().as_os_str(),
        "--tokens".as_ref(),
        oracle(&format!("{model}/tokens.json")).into_os_string().as_os_str(),
        "--out".as_ref(),
        out.as_os_str(),
    ]
    .map(std::ffi::OsStr::to_owned);
    bessemer(&arguments).output();

    let (ours, theirs) =
        (std::fs::read(&out).unwrap(), std::fs::read(oracle(&format!("{model}/logits.safetensors"))));
    let theirs = theirs.unwrap();
    let (ours, theirs) =
        (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    let greedy = oracle_json(&format!("{model}/greedy.json"));
    let tolerance =
        oracle_json(&format!("{model}/meta.json"))["tolerances"]["float32"]["logits_max_abs"].clone();
    let tolerance = tolerance.as_f64().unwrap() as f32;
    let tokens = oracle_json(&format!("{model}/tokens.json"));
    for prompt in tokens["prompts"].as_array().unwrap() {
        let name = prompt["name"].as_str().unwrap();
        let length = prompt["ids"].as_array().unwrap().len();
        let expected = theirs.tensor(prompt["logits_key"].as_str().unwrap()).unwrap();
        let (found, vocab) = (ours.tensor(name).unwrap(), expected.shape()[1]);
        assert_eq!(found.shape(), [length, vocab], "{name}");
        let first = prompt["first_position"].as_u64().unwrap() as usize;
        let found = floats(found.data());
        let expected = floats(expected.data());
        assert_eq!(found.len() - first * vocab, expected.len(), "{name}");
        for (at, (a, b)) in found[first * vocab..].iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= tolerance, "{name} at {at}: {a} instead of {b}");
        }
        let found = integers(ours.tensor(&format!("{name}.greedy")).unwrap().data());
        assert_eq!(serde_json::json!(found), greedy[name]["tokens"], "{name}");
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn integers(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
}

#[test]
fn perplexity_of_the_held_out_text() {
    let file = oracle("storyteller/val_tokens_u16.bin");
    let file = file.to_str().unwrap();
    let flags = ["perplexity", "--exact", "--json", "--rows", "16", "--tokens-file", file];
    let measured = bessemer(&flags).json();
    let expected = &oracle_json("storyteller/oracle.json")["storyteller-4bit"]["val"];
    let difference = measured["nll"].as_f64().unwrap() - expected["nll"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5, "{measured}");
    assert_eq!((&measured["rows"], &measured["predictions"]), (&16.into(), &(16 * 1023).into()));
}

#[test]
fn perplexity_of_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("story.txt");
    std::fs::write(&path, "Once upon a time there was a king who had three sons.").unwrap();
    let flags = ["perplexity", "--row-length", "8", "--text", path.to_str().unwrap()];
    let outcome = bessemer(&flags);
    assert!(outcome.output().starts_with("mean NLL "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("predictions in 2 rows"), "{}", outcome.stdout);
}

#[test]
fn bench_tells_figures_with_their_spread() {
    let small = ["--prompt-tokens", "24", "--gen-tokens", "8", "--depth", "4", "--repeat", "3", "--json"];
    for batch in [1, 3] {
        let flag = format!("--batch={batch}");
        let arguments: Vec<_> = ["bench", "--threads=1", &flag].iter().chain(&small).copied().collect();
        let report = bessemer(&arguments).json();
        for figure in ["prefill_tok_s", "decode_tok_s", "ttft_ms"] {
            let spread = |field: &str| report[figure][field].as_f64().unwrap();
            assert!(0.0 < spread("min"), "{figure}");
            assert!(spread("min") <= spread("median") && spread("median") <= spread("max"), "{figure}");
        }
        assert_eq!(report["ttft_ms"]["samples"].as_array().unwrap().len(), 3 * batch);
        assert_eq!(report["decode_tok_s"]["samples"].as_array().unwrap().len(), 3);
        for figure in ["load_s", "peak_memory_mb"] {
            assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}");
        }
        assert_eq!(report["settings"]["batch"], batch);
        assert_eq!(report["model"]["workers"], 1);
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert!(!report["host"]["cpu"].as_str().unwrap().is_empty());
    }
    let text = bessemer(&["bench", "-p8", "-n4", "-d2", "-r2"]);
    assert!(text.output().contains("of 2 repetitions after one that does not count"), "{}", text.stdout);
}

#[test]
fn bench_tells_what_each_optimisation_saves() {
    let small = ["bench", "--by-optimization", "--threads=1", "-p8", "-n6", "-d2", "-r1"];
    let report = bessemer(&[&small[..], &["--json"]].concat()).json();
    let configurations = report["configurations"].as_array().unwrap();
    let figure = |at: usize, name: &str| configurations[at][name].as_f64().unwrap();
    let names: Vec<_> = configurations.iter().map(|one| one["configuration"].as_str().unwrap()).collect();
    assert_eq!(names, ["baseline", "memory_pool", "blit_queue", "command_ring", "all_optimizations"]);
    assert!(figure(0, "allocation_us_per_step") > 0.0);
    for (at, name) in names.iter().enumerate() {
        let share = figure(at, "allocation_share");
        assert!((0.0..1.0).contains(&share) && (at > 0 || share > 0.0), "{name}: {share}");
        let ratio = figure(at, "allocation_us_per_step") / figure(0, "allocation_us_per_step");
        assert!((figure(at, "allocation_ratio") - ratio).abs() < 1e-9, "{name}");
    }
    assert_eq!(figure(0, "allocation_ratio"), 1.0);
    assert!(figure(4, "allocation_ratio") < 0.5, "recordings are kept, and so is their memory");
    let text = bessemer(&small);
    assert_eq!(text.output().matches("getting memory and giving it back: ").count(), 5, "{}", text.stdout);
}

#[test]
fn info_knows_machine_and_model() {
    let machine = bessemer(&["info", "--json"]).json();
    assert!(machine["devices"][0]["memory_budget"].as_u64().unwrap() > 0);
    assert!(machine["model"].is_null());

    let flags = [
        "info",
        "--json",
        "--model",
        "default",
        "--kv-dtype",
        "f32",
        "--context",
        "512",
        "--max-sequences",
        "2",
    ];
    let model = &bessemer(&flags).json()["model"];
    // Six layers, keys and values, two heads of 64.
    let per_token = 6 * 2 * 2 * 64 * 4;
    assert_eq!(model["memory"]["kv_per_token"], per_token);
    assert_eq!(model["memory"]["kv_one_full_context"], 512 * per_token);
    assert_eq!(model["memory"]["kv_cache"], 2 * 512 * per_token);
    assert_eq!(
        (&model["layers"], &model["context"], &model["experts"]["count"]),
        (&6.into(), &1024.into(), &16.into())
    );
    assert!(model["formats"]["4-bit, group 64"]["matrices"].as_u64().unwrap() > 0);
    let text = bessemer(&["info", "--model", "synth:qwen3-30b-a3b"]);
    assert!(text.output().contains("30532.1 million"), "{}", text.stdout);
}
