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
    match app.options.api_key.as_deref().map_or(Ok(()), |key| check(key, request.headers(), API_KEY)) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// What a key is called: with an article, and after `Bearer`.
#[derive(Clone, Copy)]
pub struct Called {
    a: &'static str,
    name: &'static str,
    placeholder: &'static str,
}

/// The key of the public routes.
pub const API_KEY: Called = Called { a: "an", name: "API key", placeholder: "KEY" };

/// The key of the operator's listener.
pub const TOKEN: Called = Called { a: "a", name: "token", placeholder: "TOKEN" };

/// Whether these headers have the key.
pub fn check(key: &str, headers: &HeaderMap, called: Called) -> Result<(), ApiError> {
    let Called { a, name, placeholder } = called;
    let cure = format!("Send `Authorization: Bearer {placeholder}`");
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return Err(ApiError::unauthorised(format!(
            "authorization: {a} {name} is required, but none was given. {cure}"
        )));
    };
    let bearer =
        given.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let Some((_, given)) = bearer else {
        return Err(ApiError::unauthorised(format!(
            "authorization: must be `Bearer {placeholder}`, but another scheme was given. {cure}"
        )));
    };
    // The time taken must not tell how much of a guess is right.
    if bool::from(given.trim_ascii().ct_eq(key.as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::unauthorised(format!(
            "authorization: this {name} is wrong. Check the {} that the client sends",
            placeholder.to_ascii_lowercase()
        )))
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
            check("secret", &headers, API_KEY).is_ok()
        };
        assert!(accepted(b"Bearer secret"));
        assert!(accepted(b"bearer secret"));
        for wrong in
            [&b"Bearer secre"[..], b"Bearer secrets", b"Bearer ", b"secret", b"Basic secret", b"", b"\xff"]
        {
            assert!(!accepted(wrong), "{wrong:?}");
        }
        assert!(check("secret", &HeaderMap::new(), TOKEN).is_err());
    }
}
