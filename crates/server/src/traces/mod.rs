//! Traces of requests' ways, for OpenTelemetry (OTLP over HTTP, protobuf).
//!
//! ```text
//! POST /v1/completions          from the first byte to the last, for the client's own span where it sent one
//! └── generate                  each choice, from being received by the engine to its end
//!     ├── queue                 until the first of its rows is on the device
//!     ├── prefill               until the first token
//!     └── decode                until the last token
//! ```
//!
//! - **Nothing waits for the collector.** Spans go into a queue of 2 048 from which a thread of its own sends; a full queue
//!   drops them. Whether the collector is there is seen in the log, not in any answer.
//! - **Spans are written when a request has ended**, from the moments that the engine noted, so that tracing adds nothing
//!   between tokens.
//! - **The SDK's own client is not used**: `ureq`, which fetches models, sends spans as well, so that no second HTTP client
//!   comes into the program.

mod collector;
mod generation_trace;
mod request_trace;

pub use generation_trace::GenerationTrace;
pub use request_trace::{RequestTrace, Traced};

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use collector::Collector;

/// What the last spans get when the server ends.
const FLUSH: Duration = Duration::from_secs(3);

/// Where traces go. Clones share it.
#[derive(Clone, Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The collector's address, or a variable that begins with `OTEL_`, is wrong.
    #[error(
        "traces cannot be exported: {0}. Correct tracing.otlp_endpoint, or the environment's OTEL_ variables"
    )]
    Exporter(String),
}

impl Traces {
    /// To the collector at `endpoint`, such as `http://localhost:4318`, to which `/v1/traces` is added; absent: to the one
    /// that `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` names. The SDK's other variables count:
    /// `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`.
    ///
    /// # Errors
    /// When the address or one of these variables is wrong.
    pub fn to(endpoint: Option<&str>) -> Result<Self, TracesError> {
        let mut exporter = SpanExporter::builder().with_http().with_http_client(Collector::default());
        if let Some(endpoint) = endpoint {
            if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
                let rule = format!("an endpoint must begin with http:// or https://, but it is {endpoint:?}");
                return Err(TracesError::Exporter(rule));
            }
            exporter = exporter.with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')));
        }
        let exporter = exporter.build().map_err(|error| TracesError::Exporter(error.to_string()))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("bessemer");
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = resource.with_attribute(version).build();
        let provider =
            SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
        let scope = InstrumentationScope::builder("bessemer").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = provider.tracer_with_scope(scope);
        Ok(Self { provider, tracer })
    }

    /// Sends what is waiting. Blocks until it has arrived or failed.
    pub fn flush(&self) {
        if let Err(error) = self.provider.force_flush() {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }

    /// Sends what is waiting, for three seconds at most; nothing is traced any more.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address() {
        for wrong in ["localhost:4318", "", "grpc://x", "http://a b"] {
            let error = Traces::to(Some(wrong)).unwrap_err().to_string();
            assert!(error.contains("tracing.otlp_endpoint"), "{wrong}: {error}");
        }
        Traces::to(Some("http://127.0.0.1:1/")).unwrap().shutdown();
    }
}
