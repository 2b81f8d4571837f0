//! The listener for the operator: configuration, statistics, metrics, health. `docs/admin.md` is its manual.
//!
//! - **Not for strangers**: it listens on a loopback address unless it is told otherwise, and elsewhere only with a token.
//! - **Not for web pages**: a page of another origin that sends its reader's browser here is refused, and so is one that has
//!   given this machine's address a name of its own ([`guard`]).
//! - **It has its own router and its own connections**, so that it answers when the public server is full, before the model
//!   is loaded and while the last requests are finished.

mod config;
mod guard;
mod health;
mod metrics;
pub mod rpc;
mod runtime;
mod stats;
mod text_format;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::control::Control;
use crate::openai::error::ApiError;
use crate::routes::fallback::method_not_allowed;
use crate::server::{Connections, ServerError, check_key, listen};
use crate::{auth, observe};

/// Bytes of a body at most: some hundred times the largest sensible change.
const MAX_BODY_BYTES: usize = 256 << 10;

/// Time in which a body must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections open at once.
const MAX_CONNECTIONS: usize = 64;

/// What running answers get when the server has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

const ROUTES: &str = "/api/v1/config, /api/v1/stats, /rpc, /metrics, /health and /ready";

/// What an operator decides about the listener.
#[derive(Clone)]
pub struct AdminOptions {
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// The token that clients must send as `Authorization: Bearer`; absent: whoever reaches the address may.
    pub token: Option<String>,
}

/// What all routes share.
struct Admin {
    control: Control,
    token: Option<String>,
    address: SocketAddr,
}

/// Listens on the address of `options`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn bind_admin(options: &AdminOptions) -> Result<TcpListener, ServerError> {
    listen(&options.host, options.port, "--admin-port").await
}

/// Serves the operator until `shutdown` completes.
///
/// # Errors
/// When the token cannot be sent in a header, or other machines reach the address and there is none.
pub async fn serve_admin(
    listener: TcpListener,
    control: Control,
    options: AdminOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    check_key(options.token.as_deref())?;
    let address = listener.local_addr().map_err(ServerError::Socket)?;
    if options.token.is_none() && !address.ip().is_loopback() {
        return Err(ServerError::OpenAdmin(address));
    }
    tracing::info!(%address, "listening for the operator");
    let admin = Arc::new(Admin { control, token: options.token, address });
    let (connections, drain) =
        Connections::new(listener, router(admin), MAX_CONNECTIONS).until(shutdown).await;
    drain.within(connections, DRAIN_TIMEOUT).await;
    Ok(())
}

/// All routes. From outside to inside: span and id, where the request is from, token, route. `/health` and `/ready` need no
/// token.
fn router(admin: Arc<Admin>) -> Router {
    let open = Router::new().route("/health", get(health::health)).route("/ready", get(health::ready));
    let keyed = Router::new()
        .route("/api/v1/config", get(config::show).post(config::change))
        .route("/api/v1/stats", get(stats::stats))
        .route("/rpc", post(rpc::serve))
        .route("/metrics", get(metrics::metrics))
        .fallback(no_route)
        .layer(from_fn_with_state(admin.clone(), require_token));
    open.merge(keyed)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(admin.clone(), guard::refuse_web_pages))
        .layer(from_fn(observe::observe_quietly))
        .with_state(admin)
}

/// Lets only requests with the token pass, where there is one.
async fn require_token(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(token) = &admin.token {
        auth::check(token, request.headers(), auth::TOKEN)?;
    }
    Ok(next.run(request).await)
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(method.as_str(), uri.path(), ROUTES)
}
