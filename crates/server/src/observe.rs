//! One span and one line of log for each request, and the id that ties them to the client's.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use crate::app::App;
use crate::{ErrorKind, Traces, id};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a client's own id at most.
const MAX_ID: usize = 128;

/// Gives the request an id and a span, logs how it was answered, and counts it.
///
/// The path is logged as the route's pattern: what a client wrote into it is not ours to keep.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = route(&request).to_owned();
    let told = |status, milliseconds| tracing::info!(status, milliseconds, "answered");
    // Supervisors ask for it every few seconds.
    let traces = app.options.traces.as_ref().filter(|_| route != "/health");
    let response = watch(request, next, traces, told).await;
    app.options.meter.answered(&route, response.status());
    if let Some(kind) = response.extensions().get::<ErrorKind>() {
        app.options.meter.failed(*kind);
    }
    response
}

/// As [`observe`], at level debug: for routes that are asked every few seconds, and tell themselves what they change.
pub async fn observe_quietly(request: Request, next: Next) -> Response {
    watch(request, next, None, |status, milliseconds| tracing::debug!(status, milliseconds, "answered")).await
}

async fn watch(
    mut request: Request,
    next: Next,
    traces: Option<&Traces>,
    tell: impl FnOnce(u16, u128),
) -> Response {
    let started = Instant::now();
    let id = given_id(request.headers()).unwrap_or_else(|| id::unique("req"));
    let method = request.method().clone();
    let route = route(&request).to_owned();
    let trace = traces.map(|traces| traces.request(request.headers(), &id, &method, &route));
    let trace_id = trace.as_ref().map(|trace| tracing::field::display(trace.id()));
    let span = tracing::info_span!("request", request_id = %id, trace_id, %method, route);
    if let Some(trace) = trace.clone() {
        request.extensions_mut().insert(trace);
    }
    let mut response = async {
        let response = next.run(request).await;
        if let Some(trace) = trace {
            trace.answered(response.status());
        }
        tell(response.status().as_u16(), started.elapsed().as_millis());
        response
    }
    .instrument(span)
    .await;
    if method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // The Allow header is the answer that OPTIONS asks for.
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        response = StatusCode::NO_CONTENT.into_response();
        response.headers_mut().extend(allow.map(|allow| (axum::http::header::ALLOW, allow)));
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The pattern of the route that a request is for.
fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str)
}

/// The client's id, if it is fit for a log.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(REQUEST_ID)?.to_str().ok()?;
    let fit = !given.is_empty() && given.len() <= MAX_ID && given.bytes().all(|byte| byte.is_ascii_graphic());
    fit.then(|| given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients() {
        let given = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            given_id(&headers)
        };
        assert_eq!(given("abc-123").as_deref(), Some("abc-123"));
        assert_eq!(given(""), None);
        assert_eq!(given("a b"), None);
        assert_eq!(given(&"x".repeat(MAX_ID + 1)), None);
    }
}
