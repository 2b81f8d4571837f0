//! `/health` and `/ready`, for whoever starts, watches and balances servers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Admin;
use crate::control::Phase;
use crate::openai::error::ApiError;

/// Whether a new start would help: 200 while it would not, loading and draining included; 503 once the device is lost.
pub async fn health(State(admin): State<Arc<Admin>>) -> Result<Json<Value>, ApiError> {
    let status = match admin.control.phase() {
        Phase::Loading => "loading",
        Phase::Running(engine) => {
            engine.health()?;
            "ok"
        }
        Phase::Draining(engine) => {
            engine.health()?;
            "draining"
        }
    };
    Ok(Json(json!({"status": status})))
}

/// Whether requests should be sent here: 200 while they are taken, else 503 with the reason.
pub async fn ready(State(admin): State<Arc<Admin>>) -> Result<Json<Value>, ApiError> {
    match admin.control.phase() {
        Phase::Loading => {
            Err(ApiError::not_now("loading", "The model is being loaded. Ask again in a moment"))
        }
        Phase::Draining(_) => Err(ApiError::shutting_down()),
        Phase::Running(engine) => {
            engine.health()?;
            Ok(Json(json!({"status": "ready"})))
        }
    }
}
