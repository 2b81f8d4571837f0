//! What the routes tell and change.

use std::time::{Duration, Instant};

use bessemer_config::{Acts, Key, Kind, keys};
use serde_json::{Value, json};

use crate::operator::{Operator, engine, file};
use crate::streams::Streams;

/// `value` at the key's place in a document.
pub fn at(key: &Key, value: Value) -> Value {
    key.path.rsplit('.').fold(value, |value, name| json!({ name: value }))
}

/// The value at the key's place.
pub fn find<'a>(key: &Key, document: &'a Value) -> &'a Value {
    key.path.split('.').fold(document, |node, name| &node[name])
}

/// A value that differs from the default and from `now`, and breaks no rule beside the defaults of the others.
pub fn another(key: &Key, now: &Value) -> Value {
    let values = match key.name() {
        "heap_size_mb" => [json!(128), json!(192)],
        "num_heaps" => [json!(3), json!(5)],
        "warmup_buffer_sizes_mb" => [json!([16]), json!([8, 64])],
        "max_heap_size_mb" => [json!(1024), json!(512)],
        "min_heaps" => [json!(3), json!(4)],
        "timeout_ms" => [json!(4000), json!(3000)],
        "max_pending_ops" => [json!(4), json!(6)],
        "staging_buffer_size_mb" => [json!(16), json!(32)],
        "direct_write_bytes" => [json!(0), json!(4096)],
        "ring_size" => [json!(2), json!(4)],
        "max_wait_ms" => [json!(0), json!(500)],
        "layers_per_command_buffer" => [json!(2), json!(1)],
        "fallback_log_level" => [json!("info"), json!("debug")],
        "preset" => [json!("debug"), json!("realtime")],
        "threshold" => [json!(0.9), json!(0.5)],
        "percent" => [json!(10), json!(50)],
        "stages" => [json!([50, 100]), json!([100])],
        _ => match key.kind {
            Kind::Flag => [json!(now != &json!(true)), json!(now != &json!(true))],
            Kind::Switch => [json!(true), json!(false)],
            _ => panic!("{} has no other value here", key.path),
        },
    };
    values.into_iter().find(|value| value != now).unwrap()
}

/// The keys that can change while requests run.
pub fn changeable() -> impl Iterator<Item = &'static Key> {
    keys().iter().filter(|key| key.acts != Acts::AtStart)
}

#[tokio::test]
async fn the_configuration_is_shown_and_changed_and_taken_back() {
    let operator = Operator::start(&engine(), "metal_optimizations: {memory_pool: {num_heaps: 3}}\n").await;
    let shown = operator.get("/api/v1/config").await.ok();
    assert_eq!(shown["config"]["metal_optimizations"]["memory_pool"]["num_heaps"], 3);
    assert_eq!(shown["origins"]["metal_optimizations"]["memory_pool"]["num_heaps"], "runtime.yaml:1");
    assert_eq!(shown["config"]["port"], 8080);

    let heaps =
        |n: Value| json!({"metal_optimizations": {"memory_pool": {"num_heaps": n}, "enabled": false}});
    let changed = operator.patch(&heaps(json!(5))).await.ok();
    let expected = json!([
        {"key": "metal_optimizations.enabled", "from": "auto", "to": false},
        {"key": "metal_optimizations.memory_pool.num_heaps", "from": 3, "to": 5},
    ]);
    assert_eq!(changed["changed"], expected);
    assert_eq!(changed["origins"]["metal_optimizations"]["enabled"], "changed at run time");
    assert_eq!(operator.get("/api/v1/config").await.ok()["config"], changed["config"]);
    assert_eq!(operator.in_force().await["memory_pool"]["num_heaps"], 5);

    let back = operator.patch(&json!({"metal_optimizations": null})).await.ok();
    assert_eq!(back["config"], shown["config"]);
    assert_eq!(back["origins"], shown["origins"]);
    assert_eq!(operator.in_force().await["enabled"], "auto");
    assert_eq!(operator.patch(&json!({})).await.ok()["changed"], json!([]));
}

#[tokio::test]
async fn a_file_takes_back_what_was_changed_and_a_bad_one_changes_nothing() {
    let engine = engine();
    let operator = Operator::start(&engine, "").await;
    operator.patch(&json!({"metal_optimizations": {"memory_pool": {"num_heaps": 5}}})).await.ok();
    let wrong = operator.control.reload(Some(file("metal_optimizations: {enabled: maybe}\n"))).await;
    assert!(
        wrong.unwrap_err().to_string().starts_with("runtime.yaml:1: metal_optimizations.enabled is maybe")
    );
    assert_eq!(operator.in_force().await["memory_pool"]["num_heaps"], 5);
    let new = file("port: 1\nmetal_optimizations: {command_buffer_ring: {ring_size: 4}}\n");
    let applied = operator.control.reload(Some(new)).await.unwrap();
    assert_eq!(applied.late.iter().map(|change| change.key.path).collect::<Vec<_>>(), ["port"]);
    let settings = operator.in_force().await;
    assert_eq!(
        (&settings["memory_pool"]["num_heaps"], &settings["command_buffer_ring"]["ring_size"]),
        (&json!(4), &json!(4))
    );
}

/// Each key that can change, by both interfaces, while clients read streams.
#[tokio::test(flavor = "multi_thread")]
async fn every_key_changes_under_requests_and_is_seen_at_once() {
    let engine = engine();
    let operator = Operator::start(&engine, "").await;
    let streams = Streams::start(&engine).await;
    let mut changed = 0;
    let mut late = Vec::new();
    for key in changeable() {
        let before = operator.get("/api/v1/config").await.ok()["config"].take();
        let value = another(key, find(key, &before));
        let start = Instant::now();
        operator.patch(&at(key, value.clone())).await.ok();
        late.extend(seen(&operator, key, &value, start).await);
        let value = another(key, &value);
        let start = Instant::now();
        let below = at(key, value.clone())["metal_optimizations"].take();
        if below.is_object() {
            let answer = operator.call("runtime.update_metal_config", json!({"config": below})).await;
            assert_eq!(answer["error"], Value::Null, "{}: {answer}", key.path);
            late.extend(seen(&operator, key, &value, start).await);
        }
        operator
            .patch(&json!({"preset": null, "metal_optimizations": null, "metal_acceleration": null}))
            .await
            .ok();
        assert_eq!(operator.get("/api/v1/config").await.ok()["config"], before, "{}", key.path);
        changed += 1;
    }
    assert!(changed >= 40, "only {changed} keys can change");
    // A machine that has other things to do may stop all of us for longer, but not most of the time.
    assert!(late.len() * 10 <= changed, "longer than a second took {late:?}");
    let answers = streams.stop().await;
    println!("{changed} keys changed under {answers} answers");
}

/// A change shows in the configuration and in what the engine says of itself; the time, where that is above a second.
async fn seen(
    operator: &Operator,
    key: &Key,
    value: &Value,
    start: Instant,
) -> Option<(&'static str, Duration)> {
    let shown = operator.get("/api/v1/config").await.ok();
    assert_eq!(find(key, &shown["config"]), value, "{}", key.path);
    let stats = operator.get("/api/v1/stats").await.ok()["metal_optimizations"].take();
    if key.path.starts_with("metal_optimizations.") {
        let settings = json!({"metal_optimizations": stats["settings"]});
        assert_eq!(find(key, &settings), value, "{}", key.path);
    }
    match key.path {
        "metal_optimizations.command_buffer_ring.ring_size" => {
            assert_eq!(&stats["command_buffer_ring"]["ring_size"], value);
        }
        "metal_optimizations.memory_pool.enabled" => assert_eq!(&stats["features"][0]["wanted"], value),
        "metal_optimizations.blit_queue.enabled" => assert_eq!(&stats["features"][1]["wanted"], value),
        "metal_optimizations.command_buffer_ring.enabled" => {
            assert_eq!(&stats["features"][2]["wanted"], value)
        }
        _ => {}
    }
    let took = start.elapsed();
    (took > Duration::from_secs(1)).then_some((key.path, took))
}

#[tokio::test]
async fn calls_are_answered_as_the_specification_says() {
    let operator = Operator::start(&engine(), "").await;
    let info = operator.call("runtime/info", json!({})).await;
    assert_eq!(info["jsonrpc"], "2.0");
    assert_eq!(info["id"], 1);
    assert_eq!(info["result"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["result"]["model"]["model"], "storyteller");
    let stats = operator.call("runtime.get_metal_stats", json!([])).await;
    assert!(stats["result"]["memory_pool"]["total_acquired"].is_u64(), "{stats}");
    let config = json!({"config": {"blit_queue": {"enabled": false}}});
    let changed = operator.call("runtime.update_metal_config", config).await;
    assert_eq!(changed["result"]["config"]["blit_queue"]["enabled"], false);
    assert_eq!(changed["result"]["changed"][0]["key"], "metal_optimizations.blit_queue.enabled");

    let batch = json!([
        {"jsonrpc": "2.0", "method": "runtime.update_metal_config", "params": [{"blit_queue": null}]},
        {"jsonrpc": "2.0", "method": "runtime.get_metal_stats", "id": "stats"},
        {"jsonrpc": "2.0", "method": "runtime.get_metal_stat", "id": null},
        {"method": "runtime/info", "id": 4},
        5,
    ]);
    let answers = operator.post("/rpc", &batch).await.ok();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 4, "a notification is not answered: {answers:?}");
    assert_eq!(answers[0]["id"], "stats");
    assert_eq!(
        answers[0]["result"]["settings"]["blit_queue"]["enabled"], true,
        "calls are made in their order"
    );
    let codes: Vec<_> = answers[1..].iter().map(|answer| answer["error"]["code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [-32_601, -32_600, -32_600]);
    assert!(
        answers[1]["error"]["message"].as_str().unwrap().ends_with("Did you mean runtime.get_metal_stats?")
    );
    assert_eq!((&answers[2]["id"], &answers[3]["id"]), (&json!(4), &Value::Null));

    let notification =
        json!({"jsonrpc": "2.0", "method": "runtime.update_metal_config", "params": [{"enabled": false}]});
    let reply = operator.post("/rpc", &notification).await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    assert_eq!(operator.in_force().await["enabled"], false, "it was made all the same");
    assert_eq!(operator.post("/rpc", &json!([notification, notification])).await.status, 204);
}
