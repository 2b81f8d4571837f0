//! The HTTP client that brings spans to a collector.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// What one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer at most; a sound one has a few.
const MAX_ANSWER: u64 = 1 << 20;

/// Sends from the exporter's own thread, which may block, and says in the log when that begins to fail and when it works
/// again.
#[derive(Debug)]
pub struct Collector {
    agent: ureq::Agent,
    failing: AtomicBool,
}

impl Default for Collector {
    fn default() -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        Self { agent: config.build().new_agent(), failing: AtomicBool::new(false) }
    }
}

impl Collector {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let mut response = self.agent.run(Request::from_parts(parts, &body[..]))?;
        let bytes = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
        let (parts, _) = response.into_parts();
        Ok(Response::from_parts(parts, bytes.into()))
    }

    fn tell(&self, failure: Option<String>) {
        let failing = failure.is_some();
        if self.failing.swap(failing, Ordering::Relaxed) != failing {
            match failure {
                Some(reason) => tracing::warn!(reason, "traces do not reach the collector; they are dropped"),
                None => tracing::info!("traces reach the collector again"),
            }
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let outcome = self.send(request);
        self.tell(match &outcome {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
            Err(error) => Some(error.to_string()),
        });
        Ok(outcome?)
    }
}
