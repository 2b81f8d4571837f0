//! `soak` on the CPU device.

use std::io::{BufRead, BufReader};
use std::process::Command;

use serde_json::Value;

use crate::run::{bessemer, command, oracle};

fn tiny() -> String {
    oracle("golden/quantised/qwen2_4bit_g64/model").to_str().unwrap().to_owned()
}

#[test]
fn a_device_that_fails_is_survived_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("soak.json");
    let model = tiny();
    let flags =
        ["soak", "--device=cpu", "--requests=400", "--seed=3", "--faults=0.004", "--switches", "--model"];
    let outcome = bessemer(&[&flags[..], &[&model, "--json", path.to_str().unwrap()]].concat());
    let text = outcome.output();
    assert!(text.contains("400 ended") && text.lines().last() == Some("passed"), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let number = |pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    assert_eq!((number("/requests/ended"), number("/requests/violations")), (400, 0));
    assert!(number("/requests/right") > 20 && number("/switched") > 0);
    assert!(report["faults"]["injected"].as_object().unwrap().len() > 3, "{}", report["faults"]);
    assert_eq!((number("/remains/pool_live"), number("/remains/device_bytes")), (0, 0));
    assert_eq!(number("/remains/pool_acquired"), number("/remains/pool_released"));
    assert_eq!((&report["soak"]["seed"], &report["failures"]), (&3.into(), &Value::Array(Vec::new())));
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let model = tiny();
    let mut run = command();
    run.args(["soak", "--device=cpu", "--duration=1h", "--concurrency=2", "--model", &model]);
    let mut child = run.spawn().unwrap();
    // It listens to signals long before it tells how far it is.
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(notes.any(|line| line.unwrap().contains(" requests, ")), "it ended before it told");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(notes.any(|line| line.unwrap().contains("finishing the requests")));
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(" s, interrupted") && text.lines().last() == Some("passed"), "{text}");
}
