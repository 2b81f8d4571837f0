//! `/health`: whether requests are taken.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::openai::error::ApiError;

/// 200 while requests are taken, 503 while the last ones are finished.
pub async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.is_draining() { Err(ApiError::shutting_down()) } else { Ok(Json(json!({"status": "ok"}))) }
}
