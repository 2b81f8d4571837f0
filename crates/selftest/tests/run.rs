//! A run goes on whatever a check does, and says what happened.

use std::cell::Cell;
use std::sync::Arc;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::{Device, DeviceError};
use bessemer_selftest::{Check, Ending, Failure, Group, Outcome, Report, Selftest, Twin};
use rand::Rng;
use rand::rngs::SmallRng;

fn lost(_: &Twin, _: &mut SmallRng) -> Outcome {
    Err(DeviceError::Lost("it fell off".into()).into())
}

fn wrong(_: &Twin, _: &mut SmallRng) -> Outcome {
    Err(Failure::wrong("first line\nsecond line").within("4×4"))
}

fn panics(_: &Twin, rng: &mut SmallRng) -> Outcome {
    panic!("drew {}", rng.random_range(0..1))
}

fn rarely(_: &Twin, rng: &mut SmallRng) -> Outcome {
    if rng.random_range(0..6) == 0 { Err(Failure::wrong("a six")) } else { Ok(()) }
}

const CHECKS: &[Check] = &[
    Check { name: "passes", run: |_, _| Ok(()) },
    Check { name: "wrong", run: wrong },
    Check { name: "panics", run: panics },
    Check { name: "lost", run: lost },
    Check { name: "unable", run: |_, _| Err(Failure::skipped("no wings")) },
    Check { name: "refused", run: |_, _| Err(DeviceError::Usage("so".into()).into()) },
    Check { name: "rarely", run: rarely },
];

fn groups() -> Vec<Group> {
    vec![Group { name: "a/b".into(), checks: CHECKS }]
}

fn cpu() -> bessemer_hal::Result<Arc<dyn Device>> {
    Ok(CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: Some(1 << 20) }))
}

fn run(selftest: &Selftest) -> Report {
    selftest.run(&cpu, &groups(), &mut |_| ()).unwrap()
}

#[test]
fn every_check_ends_in_an_entry() {
    let report = run(&Selftest { filter: None, repeat: 40, seed: 3 });
    let endings: Vec<_> = report.checks.iter().map(|entry| (entry.name.as_str(), entry.ending)).collect();
    assert_eq!(
        endings,
        [
            ("a/b/passes", Ending::Passed),
            ("a/b/wrong", Ending::Failed),
            ("a/b/panics", Ending::Failed),
            ("a/b/lost", Ending::Failed),
            ("a/b/unable", Ending::Skipped),
            ("a/b/refused", Ending::Failed),
            ("a/b/rarely", Ending::Failed),
        ]
    );
    assert_eq!(report.checks[0].rounds, 40);
    assert_eq!(report.checks[1].rounds, 1);
    let message = |at: usize| report.checks[at].message.clone().unwrap();
    assert_eq!(message(1), "4×4: first line\nsecond line");
    assert!(message(2).contains("drew 0") && message(2).contains("run.rs"), "{}", message(2));
    assert_eq!(message(3), "device lost: it fell off");
    assert_eq!(message(4), "no wings");
    assert!(!report.passed());
    let summary = report.summary();
    assert!(summary.contains(
        "FAILED a/b/wrong\n  4×4: first line\n  second line\n  again: --filter a/b/wrong --seed 3"
    ));
    assert!(summary.contains("1 passed, 5 failed, 1 skipped"), "{summary}");
    assert_eq!(report.checks[4].to_string(), "skipped: no wings");
}

#[test]
fn a_failed_round_is_repeated_by_its_seed() {
    let all = run(&Selftest { filter: Some("rarely".into()), repeat: 100, seed: 5 });
    let failed = &all.checks[0];
    assert_eq!((all.checks.len(), failed.ending), (1, Ending::Failed));
    assert_eq!(failed.seed, 5 + u64::from(failed.rounds) - 1);
    assert!(failed.rounds > 1, "another seed is needed to test this");
    let again = run(&Selftest { filter: Some("a/b/rarely".into()), repeat: 1, seed: failed.seed });
    assert_eq!(again.checks[0].message.as_deref(), Some("a six"));
    let before = run(&Selftest { filter: Some("rarely".into()), repeat: 1, seed: failed.seed - 1 });
    assert!(before.passed());
}

#[test]
fn a_ruined_device_is_replaced() {
    let opened = Cell::new(0);
    let open = || {
        opened.set(opened.get() + 1);
        if opened.get() == 3 { Err(DeviceError::Lost("for good".into())) } else { cpu() }
    };
    let report = Selftest::default().run(&open, &groups(), &mut |_| ()).unwrap();
    // Opened at first and after the panic; the third, after the loss, fails the check that it was for, and no other.
    assert_eq!(opened.get(), 4);
    assert_eq!(report.checks[4].message.as_deref(), Some("device lost: for good"));
    assert_eq!(report.checks[5].message.as_deref(), Some("wrong use of the device: so"));
    assert!(
        Selftest::default().run(&|| Err(DeviceError::Lost("gone".into())), &groups(), &mut |_| ()).is_err()
    );
}

#[test]
fn the_watcher_sees_each_check_before_and_after() {
    let mut seen = Vec::new();
    let filter = Some("passes".into());
    let report = Selftest { filter, ..Selftest::default() }
        .run(&cpu, &groups(), &mut |report| seen.push((report.running.clone(), report.checks.len())))
        .unwrap();
    assert_eq!(seen, [(Some("a/b/passes".into()), 0), (None, 1)]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["checks"][0]["name"], "a/b/passes");
    assert_eq!(json["checks"][0]["ending"], "passed");
    assert_eq!(json["device"]["backend"], "cpu");
    assert!(json["device"]["limits"]["alignment"].as_u64().unwrap() > 0);
    assert!(json["machine"]["system"].as_str().unwrap().contains(' '));
    assert!(report.header().contains("cpu device: "));
}

#[test]
fn names_are_unique_and_plain() {
    let everything = Selftest::default().chosen(&Group::all());
    let mut names: Vec<_> = everything.into_iter().map(|(name, _)| name).collect();
    assert!(names.len() > 30);
    for name in &names {
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/".contains(c));
        assert!(plain, "{name}");
    }
    names.sort();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before);
}
