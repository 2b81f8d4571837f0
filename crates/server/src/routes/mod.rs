//! The routes and what every request passes through on its way to them.

mod chat;
mod completions;
pub mod fallback;
mod health;
mod models;
mod tokenize;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::app::App;
use crate::{auth, cors, observe};

/// All routes. From outside to inside: span and id, origins, key, route. `/health` needs no key.
pub fn router(app: Arc<App>) -> Router {
    let open = Router::new().route("/health", get(health::health));
    let keyed = Router::new()
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .fallback(fallback::no_route)
        .layer(from_fn_with_state(app.clone(), auth::require_key));
    open.merge(keyed)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(from_fn_with_state(app.clone(), cors::allow_origins))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}
