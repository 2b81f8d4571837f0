//! `/v1/models`: the one model that is served.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use crate::app::App;
use crate::openai::error::ApiError;

/// A model; `root` and `max_model_len` are vLLM's.
#[derive(Serialize)]
pub struct Model {
    id: Arc<str>,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    max_model_len: usize,
}

/// The list of models.
#[derive(Serialize)]
pub struct List {
    object: &'static str,
    data: [Model; 1],
}

fn served(app: &App) -> Model {
    let info = app.engine.info();
    Model {
        id: app.model.clone(),
        object: "model",
        created: app.started,
        owned_by: "bessemer",
        root: info.model.clone(),
        parent: None,
        max_model_len: info.context,
    }
}

/// `GET /v1/models`.
pub async fn list(State(app): State<Arc<App>>) -> Json<List> {
    Json(List { object: "list", data: [served(&app)] })
}

/// `GET /v1/models/{id}`; ids may have slashes.
pub async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    app.check_model(Some(&id))?;
    Ok(Json(served(&app)))
}
