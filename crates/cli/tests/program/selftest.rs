//! `selftest` on the CPU device, which is everywhere.

use serde_json::Value;

use crate::run::bessemer;

#[test]
fn the_report_is_read_by_people_and_by_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let file = path.to_str().unwrap();
    let part = ["selftest", "--device", "cpu", "--filter", "device/misuse", "--repeat", "2", "--seed", "5"];
    let outcome = bessemer(&[&part[..], &["--json", file]].concat());
    let text = outcome.output();
    assert_eq!(outcome.stderr, "");
    assert!(text.starts_with("bessemer ") && text.contains("cpu device: "), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("device/misuse/")).collect();
    assert!(lines.len() > 3 && lines.iter().all(|line| line.contains(" ok ")), "{text}");
    let end = format!("{} passed, 0 failed, 0 skipped in ", lines.len());
    assert!(text.lines().last().unwrap().starts_with(&end), "{text}");

    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), lines.len());
    for check in checks {
        assert!(check["name"].as_str().unwrap().starts_with("device/misuse/"));
        assert_eq!(
            (&check["ending"], &check["rounds"], &check["seed"]),
            (&"passed".into(), &2.into(), &6.into())
        );
    }
    assert_eq!(report["device"]["backend"], "cpu");
    assert_eq!((&report["seed"], &report["running"]), (&5.into(), &Value::Null));
}

#[test]
fn a_report_that_cannot_be_written_is_told() {
    let outcome = bessemer(&[
        "selftest",
        "--device",
        "cpu",
        "--filter",
        "misuse/lengths",
        "--json",
        "/nowhere/report.json",
    ]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("/nowhere/report.json: cannot write it"), "{}", outcome.stderr);
}
