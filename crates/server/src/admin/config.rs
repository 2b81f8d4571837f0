//! `/api/v1/config`: what the server goes by.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use bessemer_config::{Change, Configuration};
use serde_json::{Value, json};

use super::{Admin, BODY_TIMEOUT, MAX_BODY_BYTES};
use crate::body;
use crate::control::ControlError;
use crate::openai::error::ApiError;

/// `GET`: all values and where each is from. Secrets are hidden.
pub async fn show(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(document(&admin.control.configuration(), None))
}

/// `POST`: a JSON merge patch (RFC 7396). The answer comes when it is in force, or says why nothing has changed.
pub async fn change(State(admin): State<Arc<Admin>>, request: Request) -> Result<Json<Value>, ApiError> {
    let bytes = body::declared(request, MAX_BODY_BYTES, BODY_TIMEOUT).await?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|error| ApiError::not_json(&error))?;
    let applied = admin.control.patch(patch).await?;
    Ok(Json(document(&applied.configuration, Some(&applied.changes))))
}

fn document(configuration: &Configuration, changes: Option<&[Change]>) -> Value {
    let mut document = json!({"config": configuration.json(), "origins": configuration.origins_json()});
    if let Some(changes) = changes {
        document["changed"] = changes.iter().map(Change::json).collect();
    }
    document
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::Config(error) => {
                let field = error.problems.first().map(|problem| problem.field.clone()).unwrap_or_default();
                Self::invalid(field, message.replace('\n', "; "))
            }
            ControlError::Engine(error) => error.into(),
            ControlError::Loading => Self::not_now("loading", message),
            ControlError::Busy => Self::not_now("busy", message),
            ControlError::Ended => Self::shutting_down(),
        }
    }
}
