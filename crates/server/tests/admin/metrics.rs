//! `/metrics` as Prometheus reads it.

use std::collections::BTreeMap;

use bessemer_engine::{Engine, EngineOptions};
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::{Fault, FaultDevice};
use bessemer_server::ServerOptions;
use serde_json::json;

use crate::client::{Client, Server};
use crate::operator::{Operator, engine};

/// Reads a page strictly: each sample belongs to the heading before it, and histograms add up.
async fn scrape(client: &Client) -> BTreeMap<String, f64> {
    let reply = client.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut samples = BTreeMap::new();
    let mut histograms: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
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
            assert!(["counter", "gauge", "histogram"].contains(&given), "{line}");
            assert_eq!(given == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let own = series.split('{').next().unwrap();
            let end = own.strip_prefix(&name).unwrap_or_else(|| panic!("{line} below {name}"));
            let histogram = ["_bucket", "_sum", "_count"].contains(&end);
            assert!(if kind == "histogram" { histogram } else { end.is_empty() }, "{line}");
            assert_eq!(end == "_bucket", series.contains("le=\""), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && value.is_finite() && !kind.is_empty(), "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
            if kind == "histogram" {
                histograms.entry(name.clone()).or_default().push((series.to_owned(), value));
            }
        }
    }
    for (name, series) in histograms {
        let values: Vec<f64> = series.iter().map(|(_, value)| *value).collect();
        let [buckets @ .., _sum, count] = values.as_slice() else { panic!("{name} has no buckets") };
        assert!(buckets.is_sorted() && buckets.last() == Some(count), "{name}: {values:?}");
        assert!(series[buckets.len() - 1].0.contains("le=\"+Inf\""), "{name}");
        assert!(series[buckets.len()].0.starts_with(&format!("{name}_sum")), "{name}");
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
        for reason in ["out_of_memory", "timeout", "submission", "checksum", "other"] {
            let labels = format!("feature=\"{feature}\",reason=\"{reason}\"");
            assert_eq!(after[&format!("metal_fallbacks_total{{{labels}}}")], 0.0);
        }
    }
    for pair in before.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(after[pair.0] >= *pair.1, "{} went back", pair.0);
    }

    let manual =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/admin.md")).unwrap();
    for line in operator.get("/metrics").await.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        let told =
            [format!("`{name}`"), format!("`{name}{{")].iter().any(|spelling| manual.contains(spelling));
        assert!(told, "docs/admin.md does not know {name}");
    }

    operator.patch(&json!({"metal_optimizations": {"expose_metrics": false}})).await.ok();
    let hidden = scrape(&operator).await;
    let serving = |name: &String| name.starts_with("bessemer_") || name.starts_with("vllm:");
    assert!(hidden.keys().all(serving), "{hidden:?}");
    assert!(hidden.contains_key("bessemer_requests_total"));
}

/// What a series without further labels grew by.
fn grown(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, name: &str) -> f64 {
    let with_model = |labels: &str| format!("{name}{{model_name=\"default\"{labels}}}");
    let series = [name.to_owned(), with_model("")];
    let key = series.iter().find(|key| after.contains_key(*key)).unwrap_or_else(|| panic!("{name}"));
    after[key] - before[key]
}

#[tokio::test]
async fn every_event_is_in_its_histogram_once() {
    let engine = engine();
    let settings = "model_name: default\nmetal_optimizations: {enabled: true}\n";
    let operator = Operator::start(&engine, settings).await;
    let server = Server::with(engine, Default::default()).await;
    let request =
        json!({"prompt": "Once upon a time", "max_tokens": 10, "temperature": 0, "ignore_eos": true});
    // What is made once is not what is counted here.
    server.post("/v1/completions", &request).await.ok();
    for blit_queue in [true, false] {
        let patch = json!({"metal_optimizations": {"blit_queue": {"enabled": blit_queue}}});
        operator.patch(&patch).await.ok();
        let before = scrape(&operator).await;
        let begin = std::time::Instant::now();
        server.post("/v1/completions", &request).await.ok();
        let took = begin.elapsed().as_secs_f64();
        let after = scrape(&operator).await;
        let grown = |name: &str| grown(&before, &after, name);
        let count = |name: &str| grown(&format!("{name}_count"));
        let sum = |name: &str| grown(&format!("{name}_sum"));

        for (name, expected) in [
            ("vllm:time_to_first_token_seconds", 1.0),
            ("vllm:inter_token_latency_seconds", 9.0),
            ("vllm:time_per_output_token_seconds", 9.0),
            ("vllm:request_time_per_output_token_seconds", 1.0),
            ("vllm:e2e_request_latency_seconds", 1.0),
            ("vllm:request_queue_time_seconds", 1.0),
            ("vllm:request_prefill_time_seconds", 1.0),
            ("vllm:request_decode_time_seconds", 1.0),
            ("vllm:request_inference_time_seconds", 1.0),
            ("vllm:request_prompt_tokens", 1.0),
            ("vllm:request_generation_tokens", 1.0),
            ("ttft_with_blit_ms", f64::from(u8::from(blit_queue))),
            ("ttft_without_blit_ms", f64::from(u8::from(!blit_queue))),
        ] {
            assert_eq!(count(name), expected, "{name} with blit_queue {blit_queue}");
        }
        assert_eq!(sum("vllm:request_generation_tokens"), 10.0);
        assert_eq!(sum("vllm:request_prompt_tokens"), grown("vllm:prompt_tokens_total"));
        assert_eq!(grown("vllm:generation_tokens_total"), 10.0);
        assert_eq!(after["vllm:num_requests_running{model_name=\"default\"}"], 0.0);
        assert_eq!(after["vllm:kv_cache_usage_perc{model_name=\"default\"}"], 0.0);

        // The parts are times of this request, and make up the whole.
        let whole = sum("vllm:e2e_request_latency_seconds");
        let first = sum("vllm:time_to_first_token_seconds");
        let queue = sum("vllm:request_queue_time_seconds");
        let (prefill, decode) =
            (sum("vllm:request_prefill_time_seconds"), sum("vllm:request_decode_time_seconds"));
        assert!(0.0 < first && first < whole && whole <= took, "{first} < {whole} <= {took}");
        let close = |a: f64, b: f64| (a - b).abs() < 2e-6;
        assert!(close(queue + prefill, first), "{queue} + {prefill} = {first}");
        assert!(close(sum("vllm:inter_token_latency_seconds"), decode) && decode <= whole - first);
        let with_or_without = sum("ttft_with_blit_ms") + sum("ttft_without_blit_ms");
        assert!(close(with_or_without / 1e3, first));

        // The device's events: as many as are counted elsewhere.
        for (histogram, counter) in [
            ("metal_pool_acquire_duration_seconds", "metal_pool_acquired_total"),
            ("blit_upload_duration_seconds", "blit_uploads_total"),
            ("blit_download_duration_seconds", "blit_downloads_total"),
            ("command_ring_wait_seconds", "command_ring_waits_total"),
        ] {
            assert_eq!(count(histogram), grown(counter), "{histogram} with blit_queue {blit_queue}");
        }
        assert!(count("blit_upload_duration_seconds") >= 10.0 && sum("blit_upload_duration_seconds") > 0.0);
    }
    // With the ring off every submission is waited for.
    operator.patch(&json!({"metal_optimizations": {"command_buffer_ring": {"enabled": false}}})).await.ok();
    let before = scrape(&operator).await;
    server.post("/v1/completions", &request).await.ok();
    let after = scrape(&operator).await;
    assert!(grown(&before, &after, "command_ring_wait_seconds_count") >= 10.0);
    assert!(
        grown(&before, &after, "metal_pool_acquire_duration_seconds_count") >= 1.0,
        "no recording is kept"
    );
}

#[tokio::test]
async fn ends_are_told_apart() {
    let engine = engine();
    let operator = Operator::start(&engine, "model_name: story\n").await;
    let options = ServerOptions { meter: operator.control.meter().clone(), ..ServerOptions::default() };
    let server = Server::with(engine.clone(), options).await;
    let reasons = ["stop", "length", "abort", "error"];
    let ends = |samples: &BTreeMap<String, f64>| {
        reasons.map(|reason| {
            let labels = format!("model_name=\"story\",finished_reason=\"{reason}\"");
            samples[&format!("vllm:request_success_total{{{labels}}}")]
        })
    };
    assert_eq!(ends(&scrape(&operator).await), [0.0; 4]);
    let request =
        json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "ignore_eos": true});
    let text = server.post("/v1/completions", &request).await.ok()["choices"][0]["text"].to_string();
    let word = text.split_whitespace().nth(4).unwrap().to_owned();
    let mut stopped = request.clone();
    stopped["stop"] = json!([word]);
    let answer = server.post("/v1/completions", &stopped).await.ok();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
    let mut long = request.clone();
    long["max_tokens"] = json!(400);
    long["stream"] = json!(true);
    let mut stream = server.open_post("/v1/completions", &long).await;
    crate::client::read_until(&mut stream, "data: ").await;
    drop(stream);
    for _ in 0..600 {
        if engine.stats().running == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let samples = scrape(&operator).await;
    assert_eq!(ends(&samples), [1.0, 1.0, 1.0, 0.0]);
    assert_eq!(samples["vllm:e2e_request_latency_seconds_count{model_name=\"story\"}"], 2.0);
    assert_eq!(samples["vllm:time_to_first_token_seconds_count{model_name=\"story\"}"], 3.0);
    assert_eq!(samples["bessemer_errors_total{kind=\"cancelled\"}"], 1.0);
}

/// An engine on a device that fails on demand.
fn faulty() -> (std::sync::Arc<FaultDevice>, Engine) {
    let device = FaultDevice::new(CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }));
    let options = EngineOptions { max_sequences: 1, max_queue: 0, ..EngineOptions::default() };
    (device.clone(), Engine::load_on(device, options).unwrap())
}

#[tokio::test]
async fn answers_and_errors_are_counted_by_kind() {
    let (device, engine) = faulty();
    let operator =
        Operator::start(&engine, "metal_optimizations: {enabled: true, graceful_fallback: false}\n").await;
    let options = ServerOptions {
        meter: operator.control.meter().clone(),
        api_key: Some("secret".into()),
        body_timeout: std::time::Duration::from_millis(200),
        ..ServerOptions::default()
    };
    let server = Server::with(engine.clone(), options).await;
    let key = [("authorization", "Bearer secret"), ("content-type", "application/json")];
    let ask = async |path: &str, body: &serde_json::Value| {
        server.send("POST", path, &key, body.to_string().as_bytes()).await
    };
    let errors = async || {
        let samples = scrape(&operator).await;
        let kinds = ["invalid_request", "unauthorized", "queue_full", "timeout", "device", "unavailable"];
        let rest = ["cancelled", "internal"];
        let of = |kind: &str| samples[&format!("bessemer_errors_total{{kind=\"{kind}\"}}")];
        (kinds.map(of), rest.map(of))
    };
    assert_eq!(errors().await, ([0.0; 6], [0.0; 2]));
    let good = json!({"prompt": "Once", "max_tokens": 4, "temperature": 0, "ignore_eos": true});
    assert_eq!(ask("/v1/completions", &good).await.status, 200);
    assert_eq!(errors().await, ([0.0; 6], [0.0; 2]));

    assert_eq!(ask("/v1/completions", &json!({"prompt": "a", "n": -1})).await.status, 400);
    assert_eq!(ask("/no/such/route", &good).await.status, 404);
    assert_eq!(server.post("/v1/completions", &good).await.status, 401);
    assert_eq!(errors().await, ([2.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0; 2]));

    let mut long = good.clone();
    long["max_tokens"] = json!(2000);
    long["stream"] = json!(true);
    let mut stream = server.open("POST", "/v1/completions", &key, long.to_string().as_bytes()).await;
    crate::client::read_until(&mut stream, "data: ").await;
    assert_eq!(ask("/v1/completions", &good).await.status, 429);
    device.next(Fault::FailureBefore);
    let rest = crate::client::read_until(&mut stream, "\"error\"").await;
    assert!(!rest.contains("[DONE]"));
    assert_eq!(errors().await, ([2.0, 1.0, 1.0, 0.0, 1.0, 0.0], [0.0; 2]), "told in the stream");
    drop(stream);

    device.next(Fault::FailureBefore);
    assert_eq!(ask("/v1/completions", &good).await.status, 500);
    let slow = [key[0], key[1], ("content-length", "100")];
    assert_eq!(server.send("POST", "/v1/completions", &slow, b"{").await.status, 408);
    assert_eq!(errors().await, ([2.0, 1.0, 1.0, 1.0, 2.0, 0.0], [0.0; 2]));

    let samples = scrape(&operator).await;
    let answers = |route: &str, status: &str| {
        let labels = format!("route=\"{route}\",status=\"{status}\"");
        samples.get(&format!("bessemer_http_requests_total{{{labels}}}")).copied().unwrap_or_default()
    };
    assert_eq!(answers("/v1/completions", "2xx"), 2.0);
    assert_eq!((answers("/v1/completions", "4xx"), answers("/v1/completions", "5xx")), (4.0, 1.0));
    assert_eq!(answers("unknown", "4xx"), 1.0, "what a client writes makes no series");
}

#[tokio::test]
async fn a_fallback_is_counted_by_its_reason() {
    let (device, engine) = faulty();
    let operator =
        Operator::start(&engine, "metal_optimizations: {enabled: true, log_fallbacks: false}\n").await;
    let server = Server::with(engine, Default::default()).await;
    let request = json!({"prompt": "Once", "max_tokens": 4, "temperature": 0, "ignore_eos": true});
    server.post("/v1/completions", &request).await.ok();
    device.next(Fault::FailureBefore);
    server.post("/v1/completions", &request).await.ok();
    let samples = scrape(&operator).await;
    let fallbacks = samples.iter().filter(|(name, _)| name.starts_with("metal_fallbacks_total"));
    let counted: Vec<_> = fallbacks.filter(|(_, count)| **count > 0.0).collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert!(counted[0].0.contains("reason=\"submission\"") && *counted[0].1 == 1.0, "{counted:?}");
    assert_eq!(samples["bessemer_repeated_steps_total"], 1.0);
}
