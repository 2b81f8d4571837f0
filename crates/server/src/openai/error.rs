//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}` with the status that clients expect.
//!
//! - **Clients decide by status**: 400 the request is wrong, 401 the key, 404 the route or the model, 429 come back
//!   later (with `Retry-After`), 5xx it is our fault. `code` tells cases of one status apart.
//! - **422 is never sent**: OpenAI's client has a class for it, but the API itself answers 400 to every wrong field.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bessemer_engine::{DeviceError, EngineError};
use bessemer_text::{TemplateError, TokenizerError};
use serde::Serialize;

use crate::ErrorKind;

/// What a request is answered with when it cannot be served.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    kind: ErrorKind,
    body: ErrorBody,
    retry_after_seconds: Option<u32>,
}

/// The content of `error`.
#[derive(Clone, Debug, Serialize)]
struct ErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

/// The JSON document of an error, for a response body or an event of a stream.
#[derive(Serialize)]
pub struct ErrorDocument<'a> {
    error: &'a ErrorBody,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: String) -> Self {
        let body = ErrorBody { message, kind, param: None, code };
        Self { status, kind: ErrorKind::of(status), body, retry_after_seconds: None }
    }

    /// 400: a field has a value it must not have.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_value"), message.into()).with_param(param)
    }

    /// 400: a field that the request needs is not there.
    pub fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("{param}: is required, but was not given. Add it to the request");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("missing_required_parameter"), message)
            .with_param(param)
    }

    /// 400: nobody knows this field.
    pub fn unknown_field(param: impl Into<String>, nearest: Option<&str>) -> Self {
        let param = param.into();
        let cure = match nearest {
            Some(name) => format!("Did you mean `{name}`?"),
            None => "Remove it".to_owned(),
        };
        let message = format!("{param}: is no field of this request. {cure}");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("unknown_parameter"), message).with_param(param)
    }

    /// 400: OpenAI's API knows this, this server does not, and leaving it out would change the answer.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("unsupported_parameter"), message.into())
            .with_param(param)
    }

    /// 400: the body is not JSON.
    pub fn not_json(reason: &serde_json::Error) -> Self {
        let message = format!("body: must be one JSON object in UTF-8, but reading it failed with: {reason}");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_json"), message)
    }

    /// 400: the prompt leaves no room for a single token of output.
    pub fn context_length(param: &str, prompt: usize, context: usize) -> Self {
        let message = format!(
            "{param}: this model's context is {context} tokens and at least one must be left for the output, but the \
             prompt has {prompt} tokens. Shorten it"
        );
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("context_length_exceeded"), message)
            .with_param(param)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorised(message: String) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), message)
    }

    /// 404: another model than the served one.
    pub fn model_not_found(asked: &str, served: &str) -> Self {
        let message = format!(
            "model: this server serves `{served}`, but `{}` was asked for. Use `{served}` or `default`",
            crate::openai::fields::shortened(asked)
        );
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message).with_param("model")
    }

    /// 403: it may be a request like any other, but not from there.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, INVALID, Some(code), message.into())
    }

    /// 404: no such route; `routes` are those that there are.
    pub fn no_route(method: &str, path: &str, routes: &str) -> Self {
        let path = crate::openai::fields::shortened(path);
        let message = format!("{method} {path}: no such route. See {routes}");
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("unknown_url"), message)
    }

    /// 405: the route exists, for other methods.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{method} {path}: this route does not take {method}. See the Allow header");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_allowed"), message)
    }

    /// 408: the body did not arrive in time.
    pub fn body_timeout(seconds: u64) -> Self {
        let message =
            format!("body: must arrive within {seconds} s, but did not. Send it faster, or send less");
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, Some("request_timeout"), message)
    }

    /// 400: the client broke off while sending the body.
    pub fn body_broken() -> Self {
        let message = "body: must arrive whole, but broke off. Send it again".to_owned();
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("incomplete_body"), message)
    }

    /// 413: the body is over the limit.
    pub fn body_too_large(limit: usize) -> Self {
        let message = format!(
            "body: must have at most {limit} bytes, but has more. Send less, or raise the server's body limit"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("body_too_large"), message)
    }

    /// 415: the body is not declared to be JSON.
    pub fn not_declared_json(given: Option<&str>) -> Self {
        let given =
            given.map_or("none".to_owned(), |given| format!("`{}`", crate::openai::fields::shortened(given)));
        let message = format!(
            "content-type: must be `application/json`, but {given} was given. Add the header \
             `Content-Type: application/json`"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, Some("unsupported_media_type"), message)
    }

    /// 429: more requests are in the engine than it takes.
    fn busy(message: String) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            Some("rate_limit_exceeded"),
            message,
        );
        error.retry_after_seconds = Some(1);
        error
    }

    /// 500: our fault. The message must not carry anything of the user's.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, None, message.into())
    }

    /// 503: the server ends, or the request was cancelled by it.
    pub fn shutting_down() -> Self {
        let message =
            "The server is shutting down and takes no new requests. Send it again, to another server";
        let mut error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("shutting_down"), message.to_owned());
        error.retry_after_seconds = Some(5);
        error
    }

    /// 503: not now, for a reason that passes.
    pub fn not_now(code: &'static str, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some(code), message.into());
        error.retry_after_seconds = Some(1);
        error
    }

    /// 503: there is nothing left to compute with, until the server is started again.
    fn device_lost(message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("device_lost"), message)
    }

    /// Names the field at fault.
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.body.param = Some(param.into());
        self
    }

    /// As what it is counted.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn counted_as(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What a person reads.
    pub fn message(&self) -> &str {
        &self.body.message
    }

    /// What tells cases of one status apart.
    pub fn code(&self) -> Option<&'static str> {
        self.body.code
    }

    /// The JSON document.
    pub fn document(&self) -> ErrorDocument<'_> {
        ErrorDocument { error: &self.body }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Invalid { field, rule, given, cure } => {
                // The one field that the engine calls by another name.
                let field = if field == "stop_tokens" { "stop_token_ids" } else { field };
                Self::invalid(field, format!("{field}: {rule}, but it is {given}. {cure}"))
            }
            EngineError::Busy { .. } => Self::busy(message),
            EngineError::ShuttingDown => Self::shutting_down(),
            EngineError::DeviceLost { .. } => Self::device_lost(message).counted_as(ErrorKind::Device),
            EngineError::Device(DeviceError::Timeout { .. }) => {
                Self::internal(message).counted_as(ErrorKind::Timeout)
            }
            EngineError::Device(_) => Self::internal(message).counted_as(ErrorKind::Device),
            _ => Self::internal(message),
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        let message = error.to_string();
        match error {
            TemplateError::Raised(_) => Self::invalid(
                "messages",
                format!("messages: the model's chat template rejects them: {message}"),
            ),
            TemplateError::Render { .. } | TemplateError::TooMuch { .. } => {
                Self::invalid("messages", message)
            }
            TemplateError::Syntax { .. } | TemplateError::Config { .. } => Self::internal(message),
        }
    }
}

impl From<TokenizerError> for ApiError {
    fn from(error: TokenizerError) -> Self {
        let message = error.to_string();
        match error {
            TokenizerError::Encode { .. } => Self::invalid("prompt", message),
            TokenizerError::Invalid { .. } => Self::internal(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.document())).into_response();
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
