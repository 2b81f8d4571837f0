//! The key that clients must send, where the operator has set one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::openai::error::ApiError;

/// Lets only requests with the key pass.
pub async fn require_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.options.api_key.as_deref().map_or(Ok(()), |key| check(key, request.headers())) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Whether these headers have the key.
pub fn check(key: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return Err(ApiError::unauthorised(
            "authorization: an API key is required, but none was given. Send `Authorization: Bearer KEY`",
        ));
    };
    let bearer =
        given.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let Some((_, given)) = bearer else {
        return Err(ApiError::unauthorised(
            "authorization: must be `Bearer KEY`, but another scheme was given. Send `Authorization: Bearer KEY`",
        ));
    };
    // The time taken must not tell how much of a guess is right.
    if bool::from(given.trim_ascii().ct_eq(key.as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::unauthorised(
            "authorization: this API key is wrong. Check the key that the client sends",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let accepted = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header::HeaderValue::from_bytes(value).unwrap());
            check("secret", &headers).is_ok()
        };
        assert!(accepted(b"Bearer secret"));
        assert!(accepted(b"bearer secret"));
        for wrong in
            [&b"Bearer secre"[..], b"Bearer secrets", b"Bearer ", b"secret", b"Basic secret", b"", b"\xff"]
        {
            assert!(!accepted(wrong), "{wrong:?}");
        }
        assert!(check("secret", &HeaderMap::new()).is_err());
    }
}
