//! `synth`: a checkpoint that is written, then opened like any other.

use crate::run::bessemer;

#[test]
fn shapes_are_listed() {
    let list = bessemer(&["synth", "--list"]);
    assert!(list.output().lines().any(|line| line.starts_with("qwen3-0.6b ")), "{}", list.stdout);
}

#[test]
fn a_written_checkpoint_is_the_generated_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let out = out.to_str().unwrap();
    bessemer(&["synth", "qwen3moe-small:2", "--seed", "7", "--out", out]).output();
    let describe = |model: &str| {
        let mut facts = bessemer(&["info", "--json", "--model", model]).json()["model"].take();
        // The name differs, and so do the bytes: a file has a header.
        for field in ["name", "memory"] {
            facts.as_object_mut().unwrap().remove(field);
        }
        facts
    };
    assert_eq!(describe(out), describe("synth:qwen3moe-small:2"));
    let generate = |flags: &[&str]| {
        let fixed = ["generate", "--exact", "-t0", "-n4", "--json", "Once"];
        let arguments: Vec<_> = fixed.iter().chain(flags).copied().collect();
        bessemer(&arguments).json()["tokens"].take()
    };
    assert_eq!(
        generate(&["--model", out]),
        generate(&["--model", "synth:qwen3moe-small:2", "--synth-seed", "7"])
    );

    let again = bessemer(&["synth", "qwen3moe-small:2", "--out", out]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("must be an empty folder"), "{}", again.stderr);
}
