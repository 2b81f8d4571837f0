//! Random changes, right and wrong, one after the other, while clients read streams.

use bessemer_config::{Key, Kind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::calls::{another, at, changeable, find};
use crate::operator::{Operator, engine};
use crate::streams::Streams;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A key gets another value, by HTTP or JSON-RPC.
    Set { key: usize, rpc: bool },
    /// A key gets a value that it does not take.
    Wrong { key: usize, rpc: bool },
    /// What was set is taken back.
    Back,
}

fn switches() -> Vec<&'static Key> {
    let in_engine = |key: &&Key| {
        key.path.starts_with("metal_optimizations.") && (key.kind == Kind::Flag || key.kind == Kind::Switch)
    };
    changeable()
        .filter(in_engine)
        .chain(changeable().filter(|key| {
            ["ring_size", "num_heaps", "max_pending_ops", "layers_per_command_buffer"].contains(&key.name())
        }))
        .collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = switches().len();
    let step = prop_oneof![
        6 => (0..keys, any::<bool>()).prop_map(|(key, rpc)| Step::Set { key, rpc }),
        2 => (0..keys, any::<bool>()).prop_map(|(key, rpc)| Step::Wrong { key, rpc }),
        1 => Just(Step::Back),
    ];
    vec(step, 1..6)
}

/// A value that no key takes.
fn wrong(key: &Key) -> Value {
    match key.kind {
        Kind::Flag | Kind::Switch => json!("on"),
        _ => json!(1_000_000),
    }
}

/// What the operator's view must be, step by step.
async fn run(operator: &Operator, steps: &[Step]) {
    let keys = switches();
    let first = operator.get("/api/v1/config").await.ok()["config"].take();
    let mut expected = first.clone();
    for step in steps {
        match step {
            Step::Set { key, rpc } => {
                let key = keys[*key];
                let value = another(key, find(key, &expected));
                change(operator, key, value.clone(), *rpc, true).await;
                put(key, &mut expected, value);
            }
            Step::Wrong { key, rpc } => change(operator, keys[*key], wrong(keys[*key]), *rpc, false).await,
            Step::Back => {
                operator.patch(&json!({"metal_optimizations": null})).await.ok();
                expected = first.clone();
            }
        }
        let shown = operator.get("/api/v1/config").await.ok()["config"].take();
        assert_eq!(shown, expected, "{steps:?}");
    }
    let settings = operator.in_force().await;
    assert_eq!(settings, expected["metal_optimizations"], "what the engine goes by, after {steps:?}");
    operator.patch(&json!({"metal_optimizations": null})).await.ok();
}

async fn change(operator: &Operator, key: &Key, value: Value, rpc: bool, fits: bool) {
    let mut patch = at(key, value);
    if rpc {
        let config = patch["metal_optimizations"].take();
        let answer = operator.call("runtime.update_metal_config", json!({"config": config})).await;
        assert_eq!(answer.get("result").is_some(), fits, "{}: {answer}", key.path);
        assert!(fits || answer["error"]["code"] == -32_602, "{answer}");
    } else {
        let reply = operator.patch(&patch).await;
        assert_eq!(reply.status, if fits { 200 } else { 400 }, "{}: {reply:?}", key.path);
    }
}

fn put(key: &Key, document: &mut Value, value: Value) {
    let place = key.path.split('.').fold(document, |node, name| &mut node[name]);
    *place = value;
}

#[test]
fn two_hundred_sequences_of_switches() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let engine = engine();
    let operator = runtime.block_on(Operator::start(&engine, ""));
    let streams = runtime.block_on(Streams::start(&engine));
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            runtime.block_on(run(&operator, &steps));
            Ok(())
        })
        .unwrap();
    let answers = runtime.block_on(streams.stop());
    println!("200 sequences under {answers} answers");
}
