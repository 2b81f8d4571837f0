//! `/api/v1/stats`: everything that is counted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
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
        "metal_optimizations": snapshot.metal_stats(&admin.control),
    }))
}
