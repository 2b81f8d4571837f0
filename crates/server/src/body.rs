//! A request's body as JSON: declared, bounded, in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde_json::Value;

use crate::app::App;
use crate::openai::error::ApiError;

/// A parsed body.
pub struct JsonBody(pub Value);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = declared(request, app.options.max_body_bytes, app.options.body_timeout).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| ApiError::not_json(&error))
    }
}

/// A body that is declared to be JSON, of at most `limit` bytes, all of which arrive within `timeout`.
pub async fn declared(request: Request, limit: usize, timeout: Duration) -> Result<Vec<u8>, ApiError> {
    check_declared(request.headers())?;
    tokio::time::timeout(timeout, read(request.into_body(), limit))
        .await
        .map_err(|_| ApiError::body_timeout(timeout.as_secs()))?
}

/// Anything else than JSON is what a web page may send without the browser's leave.
fn check_declared(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("not text"));
    let media = given.and_then(|given| given.split(';').next()).map(str::trim).unwrap_or_default();
    if media.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::not_declared_json(given))
    }
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let declared = body.size_hint().lower();
    if declared > limit as u64 {
        return Err(ApiError::body_too_large(limit));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(declared).unwrap_or(0));
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| ApiError::body_broken())?;
        if frame.len() > limit.saturating_sub(bytes.len()) {
            return Err(ApiError::body_too_large(limit));
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_as_json() {
        let accepted = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(value));
            check_declared(&headers).is_ok()
        };
        assert!(accepted("application/json"));
        assert!(accepted("Application/JSON; charset=utf-8"));
        assert!(!accepted("text/plain"));
        assert!(!accepted("application/x-www-form-urlencoded"));
        assert!(check_declared(&HeaderMap::new()).is_err());
    }
}
