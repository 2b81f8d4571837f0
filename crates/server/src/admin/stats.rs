//! `/api/v1/stats`: everything that is counted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bessemer_engine::{HistogramSnapshot, ServingStatistics};
use serde_json::{Value, json};

use super::Admin;
use super::runtime::Snapshot;

/// Counters since the start and gauges of this moment; `null` for what is not there while the model is loaded.
pub async fn stats(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let snapshot = Snapshot::take(&admin.control);
    Json(json!({
        "status": snapshot.status,
        "uptime_seconds": snapshot.uptime_seconds,
        "engine": snapshot.engine,
        "serving": snapshot.serving.as_ref().map(|(model, serving)| times(model, serving)),
        "metal_optimizations": snapshot.metal_stats(&admin.control),
    }))
}

/// What requests went through, as counts and sums: a mean of any span of time is a difference of sums over one of counts.
/// `/metrics` has the same as histograms.
fn times(model: &str, serving: &ServingStatistics) -> Value {
    const MILLISECONDS: f64 = 1e-3;
    let times =
        |times: &HistogramSnapshot, unit: f64| json!({"count": times.count, "sum_seconds": times.sum * unit});
    json!({
        "model": model,
        "time_to_first_token": times(&serving.first_token, 1.0),
        "time_to_first_token_with_blit": times(&serving.first_token_with_blit, MILLISECONDS),
        "time_to_first_token_without_blit": times(&serving.first_token_without_blit, MILLISECONDS),
        "inter_token_latency": times(&serving.between_tokens, 1.0),
        "queue_time": times(&serving.queue, 1.0),
        "latency": times(&serving.whole, 1.0),
    })
}
