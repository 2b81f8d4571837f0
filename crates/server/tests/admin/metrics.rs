//! `/metrics` as Prometheus reads it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::client::{Client, Server};
use crate::operator::{Operator, engine};

/// Reads a page strictly: each sample belongs to the heading before it.
async fn scrape(client: &Client) -> BTreeMap<String, f64> {
    let reply = client.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut samples = BTreeMap::new();
    let (mut name, mut kind) = (String::new(), String::new());
    for line in reply.body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (next, text) = help.split_once(' ').unwrap();
            assert!(text.len() > 3 && !samples.keys().any(|known: &String| known == next), "{line}");
            name = next.to_owned();
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (same, given) = typed.split_once(' ').unwrap();
            assert_eq!(same, name);
            kind = given.to_owned();
            assert!(["counter", "gauge"].contains(&given), "{line}");
            assert_eq!(given == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next().unwrap(), name, "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && value.is_finite() && !kind.is_empty(), "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
    }
    samples
}

#[tokio::test]
async fn names_are_those_that_dashboards_know_and_counters_count() {
    let engine = engine();
    let operator = Operator::start(&engine, "metal_optimizations: {enabled: true}\n").await;
    let server = Server::with(engine, Default::default()).await;
    let before = scrape(&operator).await;
    let request =
        json!({"prompt": "Once upon a time", "max_tokens": 10, "temperature": 0, "ignore_eos": true});
    server.post("/v1/completions", &request).await.ok();
    let after = scrape(&operator).await;
    let grown = |name: &str| after[name] - before[name];
    assert_eq!(grown("metal_pool_requests_total"), 1.0);
    assert_eq!(grown("metal_pool_tokens_generated_total"), 10.0);
    assert_eq!(grown("bessemer_requests_ended_total{outcome=\"finished\"}"), 1.0);
    for name in ["metal_pool_acquired_total", "metal_pool_released_total", "command_ring_acquired_total"] {
        assert!(grown(name) >= 0.0 && after[name] > 0.0, "{name}: {} {}", before[name], after[name]);
    }
    assert!(grown("command_ring_submitted_total") >= 10.0);
    assert!(grown("blit_downloads_total") >= 1.0);
    assert_eq!(
        after["metal_pool_in_use"],
        after["metal_pool_acquired_total"] - after["metal_pool_released_total"]
    );
    assert_eq!(after["command_ring_available"], 3.0);
    for name in ["metal_pool_exhaustion_total", "metal_pool_available", "command_ring_gpu_utilization"] {
        assert!(after.contains_key(name), "{name}");
    }
    for feature in ["memory_pool", "blit_queue", "command_buffer_ring"] {
        assert_eq!(after[&format!("metal_feature_active{{feature=\"{feature}\"}}")], 1.0);
        assert_eq!(after[&format!("metal_fallbacks_total{{feature=\"{feature}\"}}")], 0.0);
    }
    for pair in before.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(after[pair.0] >= *pair.1, "{} went back", pair.0);
    }

    operator.patch(&json!({"metal_optimizations": {"expose_metrics": false}})).await.ok();
    let hidden = scrape(&operator).await;
    assert!(hidden.keys().all(|name| name.starts_with("bessemer_")), "{hidden:?}");
    assert!(hidden.contains_key("bessemer_requests_total"));
}
