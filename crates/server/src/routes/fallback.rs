//! Answers where no route fits.

use axum::http::{Method, Uri};

use crate::openai::error::ApiError;

/// The routes, for those who miss them.
const ROUTES: &str = "/v1/models, /v1/chat/completions, /v1/completions, /tokenize, /detokenize and /health";

/// No such path.
pub async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(method.as_str(), uri.path(), ROUTES)
}

/// The path exists, for other methods.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(method.as_str(), uri.path())
}
