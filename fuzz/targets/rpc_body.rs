//! Bodies of JSON-RPC calls: each is taken apart without a panic, failures have a code of the specification and a short
//! message, and what a call asks to change is taken whole or refused.
#![no_main]

use bessemer_config::{Configuration, Sources};
use bessemer_server::rpc::{Body, Call, Failure, MAX_BATCH, config_of, parse};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static RUNNING: LazyLock<Configuration> =
    LazyLock::new(|| Sources::default().resolve().expect("the defaults are a configuration"));

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Body::One(call) => check(call),
        Body::Batch(calls) => {
            assert!((1..=MAX_BATCH).contains(&calls.len()));
            calls.into_iter().for_each(check);
        }
    }
});

fn check(call: Result<Call, Failure>) {
    let call = match call {
        Ok(call) => call,
        Err(failure) => {
            assert!([-32_700, -32_600].contains(&failure.code) && failure.message.len() < 300);
            assert!(!failure.id.is_object() && !failure.id.is_array());
            return;
        }
    };
    assert!(call.params.as_ref().is_none_or(|params| params.is_object() || params.is_array()));
    match config_of(call.params) {
        Err(message) => assert!(message.len() < 500, "{message}"),
        Ok(config) => {
            let patch = serde_json::json!({"metal_optimizations": config});
            if let Ok(changed) = RUNNING.patched(&patch) {
                let changes = changed.changes_from(&RUNNING);
                assert!(changes.iter().all(|change| change.key.path.starts_with("metal_optimizations.")));
                changed.settings().optimizations.validate().expect("a change was checked");
            }
        }
    }
}
