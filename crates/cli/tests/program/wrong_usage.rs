//! What the program says when something is wrong: one message, which names the thing and the rule, and the exit code.

use std::path::Path;

use crate::run::{bessemer, command, oracle};

/// Arguments, exit code, and what the message must contain.
type Case<'a> = (&'a [&'a str], i32, &'a [&'a str]);

fn check(cases: &[Case<'_>]) {
    for (arguments, code, parts) in cases {
        let outcome = bessemer(arguments);
        assert_eq!(outcome.code, Some(*code), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        for part in *parts {
            assert!(outcome.stderr.contains(part), "{arguments:?} does not say {part:?}: {}", outcome.stderr);
        }
    }
}

#[test]
fn wrong_flags_are_told_before_anything_is_loaded() {
    check(&[
        (&["melt"], 2, &["unrecognized subcommand 'melt'"]),
        (&["generate", "--melt", "a"], 2, &["unexpected argument '--melt'"]),
        (&["generate", "--temperature", "3", "a"], 2, &["'3'", "--temperature", "from 0 to 2"]),
        (&["generate", "--temperature", "warm", "a"], 2, &["'warm'", "from 0 to 2"]),
        (&["generate", "--top-p", "0", "a"], 2, &["--top-p", "above 0 and up to 1"]),
        (&["generate", "--presence-penalty", "-3", "a"], 2, &["--presence-penalty", "from -2 to 2"]),
        (&["generate", "--logit-bias", "cat", "a"], 2, &["--logit-bias", "42=-5"]),
        (&["generate", "--max-tokens", "0", "a"], 2, &["--max-tokens", "0"]),
        (&["generate", "--stop", "", "a"], 2, &["--stop"]),
        (&["generate", "--threads", "0", "a"], 2, &["--threads", "1..=1024"]),
        (&["generate", "--device", "abacus", "a"], 2, &["'abacus'", "auto, cpu"]),
        (&["generate", "--kv-memory", "lots", "a"], 2, &["'lots'", "8GiB"]),
        (&["generate", "--exact", "--kv-dtype", "f16", "a"], 2, &["--exact", "--kv-dtype"]),
        (&["serve", "--max-sequences", "300"], 2, &["--max-sequences", "1..=256"]),
        (&["serve", "--port", "70000"], 2, &["--port", "70000"]),
        (&["serve", "--api-key", ""], 2, &["--api-key"]),
        (&["bench", "--gen-tokens", "1"], 2, &["--gen-tokens"]),
        (&["perplexity"], 2, &["--text", "--tokens-file"]),
        (&["perplexity", "--text", "a", "--tokens-file", "b"], 2, &["cannot be used with"]),
        (&["synth", "qwen3-0.6b"], 2, &["--out"]),
        (&["synth"], 2, &["--list"]),
        (&["logits", "--tokens", "a"], 2, &["--out"]),
        (&["selftest", "--device", "abacus"], 2, &["'abacus'", "vulkan:N"]),
        (&["selftest", "--repeat", "0"], 2, &["--repeat"]),
        (&["selftest", "--filter", "melt"], 1, &["\"melt\"", "no check"]),
    ]);
}

#[test]
fn what_cannot_be_opened_is_told() {
    check(&[
        (&["generate", "--model", "./nowhere", "a"], 1, &["./nowhere", "no such folder"]),
        (&["generate", "--model", "synth:blob", "a"], 1, &["no shape \"blob\"", "Known shapes: qwen3-0.6b"]),
        (
            &["generate", "--model", "org/name", "--offline", "a"],
            1,
            &["org/name", "does not hold the whole model"],
        ),
        (&["synth", "blob", "--out", "/nowhere/model"], 1, &["no shape \"blob\""]),
        (&["synth", "qwen3-0.6b:9", "--out", "/nowhere/model"], 1, &["\"9\" is not a format"]),
        (&["perplexity", "--text", "/nowhere/a.txt"], 1, &["/nowhere/a.txt: cannot read it"]),
        (&["logits", "--tokens", "/nowhere/t.json", "--out", "x"], 1, &["/nowhere/t.json: cannot read it"]),
        (&["serve", "--host", "192.0.2.1", "--port", "0"], 1, &["192.0.2.1:0", "an address of this machine"]),
    ]);
}

#[test]
fn what_the_engine_refuses_is_told() {
    let long = "dragon ".repeat(2000);
    let template = oracle("golden/models/qwen2/model");
    check(&[
        (&["generate", &long], 1, &["prompt: must have at most 1023 tokens", "Shorten it"]),
        (&["generate", "--context", "8", "a b c d e f g h i j"], 1, &["prompt: must have at most 7 tokens"]),
        (&["generate", ""], 1, &["prompt: must have at least one token"]),
        (&["generate", "--kv-memory", "1", "a"], 1, &["kv_memory", "Give more memory"]),
        (&["generate", "--logit-bias", "99999=1", "a"], 1, &["logit_bias", "99999", "4096"]),
        (&["chat", "--model", template.to_str().unwrap()], 1, &["must have a chat template"]),
    ]);
}

#[test]
fn wrong_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let prose = file("prose.json", b"Once upon a time");
    let nothing = file("nothing.json", br#"{"prompts": []}"#);
    let twice = file("twice.json", br#"{"prompts": [{"name": "a", "ids": [1]}, {"name": "a", "ids": [2]}]}"#);
    let empty = file("empty.json", br#"{"prompts": [{"name": "a", "ids": []}]}"#);
    let foreign = file("foreign.json", br#"{"prompts": [{"name": "a", "ids": [1, 4096]}]}"#);
    let (odd, one) = (file("odd.bin", &[1, 2, 3]), file("one.bin", &[1, 0]));
    let latin = file("latin.txt", &[b'a', 0xE9]);
    let truncated = folder.path().join("truncated");
    truncate_model(&oracle("golden/models/llama/model"), &truncated);
    let out = folder.path().join("out.safetensors");
    let out = out.to_str().unwrap();
    check(&[
        (&["logits", "--out", out, "--tokens", &prose], 1, &[&prose, "must have the form", "line 1"]),
        (&["logits", "--out", out, "--tokens", &nothing], 1, &["prompts must have at least one entry"]),
        (&["logits", "--out", out, "--tokens", &twice], 1, &["\"a\" is there twice"]),
        (&["logits", "--out", out, "--tokens", &empty], 1, &["ids of \"a\" must have at least one token"]),
        (
            &["logits", "--out", out, "--tokens", &foreign],
            1,
            &["prompt \"a\"", "below the vocabulary's 4096"],
        ),
        (&["perplexity", "--tokens-file", &odd], 1, &["3 bytes, an odd number"]),
        (&["perplexity", "--tokens-file", &one], 1, &["at least 2 tokens, but it has 1"]),
        (&["perplexity", "--text", &latin], 1, &[&latin, "UTF-8"]),
        (
            &["generate", "--model", truncated.to_str().unwrap(), "a"],
            1,
            &["model.safetensors", "it is cut off"],
        ),
        (&["info", "--model", truncated.to_str().unwrap()], 1, &["model.safetensors", "it is cut off"]),
    ]);
    assert!(!Path::new(out).exists());
    assert!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().ends_with(".partial") })
    );
}

fn truncate_model(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let weights = std::fs::OpenOptions::new().write(true).open(to.join("model.safetensors")).unwrap();
    weights.set_len(weights.metadata().unwrap().len() - 1000).unwrap();
}

#[test]
fn a_wrong_environment_is_told() {
    let output = command().args(["info"]).env("BESSEMER_LOG", "a=b=c").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: BESSEMER_LOG: must be a level"), "{message}");

    let generate = |arguments: &[&str]| {
        let always = ["generate", "Once", "--device", "cpu", "--max-tokens", "2"];
        let mut command = command();
        command.args(always).args(arguments).env("METAL_OPTIMIZATIONS_ENABLED", "maybe").output().unwrap()
    };
    let output = generate(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: environment METAL_OPTIMIZATIONS_ENABLED: metal_optimizations.enabled is maybe, but it must be false, true \
         or auto: choose one of them, without quotes\n"
    );
    assert_eq!(generate(&["--metal-opts", "off"]).status.code(), Some(0), "it is not asked");
}

#[test]
fn help_and_version() {
    let help = bessemer(&["--help"]);
    assert!(help.output().contains("Exit codes:"));
    let version = bessemer(&["--version"]);
    assert_eq!(version.output(), format!("bessemer {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(bessemer(&[] as &[&str]).code, Some(2));
}
