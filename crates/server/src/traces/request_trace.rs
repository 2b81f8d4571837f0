//! The span of a request as a whole.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

use super::Traces;

/// A request that is traced. Its span ends when nobody holds it any more: the answer was sent, and what was generated for
/// it has ended.
#[derive(Debug)]
pub struct RequestTrace {
    pub(super) tracer: SdkTracer,
    /// With the request's span.
    pub(super) context: Context,
    /// One moment by both clocks.
    anchor: (Instant, SystemTime),
}

impl Traces {
    /// A request has come; as a part of the client's trace where its `traceparent` names one.
    pub fn request(&self, headers: &HeaderMap, id: &str, method: &Method, route: &str) -> Arc<RequestTrace> {
        // Of nothing: whoever calls has no span of this kind.
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let anchor = (Instant::now(), SystemTime::now());
        let span = self
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_start_time(anchor.1)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_string()),
                KeyValue::new("http.route", route.to_owned()),
                KeyValue::new("bessemer.request_id", id.to_owned()),
            ]);
        let span = self.tracer.build_with_context(span, &parent);
        Arc::new(RequestTrace { tracer: self.tracer.clone(), context: parent.with_span(span), anchor })
    }
}

impl RequestTrace {
    /// The trace's id in hexadecimal digits.
    pub fn id(&self) -> String {
        self.context.span().span_context().trace_id().to_string()
    }

    /// The head of the answer is known.
    pub fn answered(&self, status: StatusCode) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
    }

    /// The time of day of a moment.
    pub(super) fn time(&self, moment: Instant) -> SystemTime {
        let (instant, time) = self.anchor;
        match moment.checked_duration_since(instant) {
            Some(after) => time + after,
            None => time - instant.duration_since(moment),
        }
    }
}

impl Drop for RequestTrace {
    fn drop(&mut self) {
        self.context.span().end_with_timestamp(self.time(Instant::now()));
    }
}

/// The trace of a request, where it is traced, for a route's handler.
pub struct Traced(pub Option<Arc<RequestTrace>>);

impl<S: Sync> FromRequestParts<S> for Traced {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.remove()))
    }
}
