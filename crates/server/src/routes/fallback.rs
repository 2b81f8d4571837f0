//! Answers where no route fits.

use axum::http::{Method, Uri};

use crate::openai::error::ApiError;

/// No such path.
pub async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(method.as_str(), uri.path())
}

/// The path exists, for other methods.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(method.as_str(), uri.path())
}
