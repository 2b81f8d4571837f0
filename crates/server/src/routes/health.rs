//! `/health`: whether requests are taken.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::openai::error::ApiError;

/// 200 while requests are taken, 503 while the last ones are finished, and once the device is lost.
pub async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.is_draining() {
        return Err(ApiError::shutting_down());
    }
    app.engine.health()?;
    Ok(Json(json!({"status": "ok"})))
}
