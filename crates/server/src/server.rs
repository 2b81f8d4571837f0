//! The listening socket, its connections, and the end of both.
//!
//! Life of a server: `bind`, `serve_on` until the shutdown signal; then the socket closes, idle connections close,
//! running requests go on, new ones on open connections get 503; when all are done or `drain_timeout` has passed, what
//! is left is broken off (which cancels it in the engine) and `serve_on` returns. The engine stays as it is: its owner
//! may go on using it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bessemer_engine::Engine;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::app::App;
use crate::options::ServerOptions;
use crate::routes::router;

/// Time in which a request's headers must arrive, and for which a connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Bytes of a request's headers at most.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Pause after an error of `accept` that will not go away by itself, such as no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error(
        "host, port: must be an address of this machine that is free, but listening on {host}:{port} failed with: \
         {source}. Choose another {flag}, or end the program that uses it"
    )]
    Bind {
        /// The asked host.
        host: String,
        /// The asked port.
        port: u16,
        /// What chooses another port.
        flag: &'static str,
        /// The system's own words.
        source: io::Error,
    },
    /// The key cannot be sent in a header.
    #[error(
        "api_key: must have at least one character, all of them printable ASCII without spaces at the ends, but the \
         given one has not. Choose another"
    )]
    Key,
    /// Other machines reach the operator's listener, and no token keeps them out.
    #[error(
        "admin.host: must be a loopback address where admin.token is not set, but it is {0}. Set BESSEMER_ADMIN_TOKEN, or \
         listen on 127.0.0.1"
    )]
    OpenAdmin(std::net::SocketAddr),
    /// The listening socket is unusable.
    #[error("the listening socket failed with: {0}. Start the server again")]
    Socket(#[source] io::Error),
}

/// Listens on the address of `options`; [`TcpListener::local_addr`] tells the port that the system chose for port 0.
pub async fn bind(options: &ServerOptions) -> Result<TcpListener, ServerError> {
    listen(&options.host, options.port, "--port").await
}

/// Listens on an address; `flag` is what chooses another port.
pub(crate) async fn listen(host: &str, port: u16, flag: &'static str) -> Result<TcpListener, ServerError> {
    // Brackets belong to addresses in URLs; the resolver does not know them.
    let name = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    TcpListener::bind((name, port)).await.map_err(|source| ServerError::Bind {
        host: host.to_owned(),
        port,
        flag,
        source,
    })
}

/// Serves `engine` until `shutdown` completes and the running requests have ended.
pub async fn serve(
    engine: Engine,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let listener = bind(&options).await?;
    serve_on(listener, engine, options, shutdown).await
}

/// As [`serve`], on a socket that is already listening.
pub async fn serve_on(
    listener: TcpListener,
    engine: Engine,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    check_key(options.api_key.as_deref())?;
    let address = listener.local_addr().map_err(ServerError::Socket)?;
    tracing::info!(%address, "listening");
    if options.is_open_to_strangers(address) {
        tracing::warn!(%address, "no API key is set and other machines can reach this address: anybody can use it");
    }
    let (most, drain_timeout) = (options.max_connections, options.drain_timeout);
    let app = Arc::new(App::new(engine, options));
    let connections = Connections::new(listener, router(app.clone()), most);
    let (connections, drain) = connections.until(shutdown).await;
    app.start_draining();
    tracing::info!(connections = connections.len(), "draining");
    drain.within(connections, drain_timeout).await;
    Ok(())
}

/// A listening socket and the connections that it has brought.
pub(crate) struct Connections {
    listener: TcpListener,
    router: Router,
    permits: Arc<Semaphore>,
}

/// The end of the connections that are open.
pub(crate) struct Drain(watch::Sender<bool>);

impl Connections {
    /// At most `most` at once; further ones wait to be accepted.
    pub(crate) fn new(listener: TcpListener, router: Router, most: usize) -> Self {
        let permits = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        Self { listener, router, permits }
    }

    /// Serves until `shutdown` completes, then closes the socket; what is open goes on.
    pub(crate) async fn until(self, shutdown: impl Future<Output = ()>) -> (JoinSet<()>, Drain) {
        let (draining, drain) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &self.permits) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let connection = connection(stream, self.router.clone(), drain.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => pause_after(&error).await,
            }
        }
        (connections, Drain(draining))
    }
}

impl Drain {
    /// Lets running requests end, and breaks off what is left after `timeout`.
    pub(crate) async fn within(self, mut connections: JoinSet<()>, timeout: Duration) {
        self.0.send_replace(true);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(timeout, all_ended).await.is_err() {
            tracing::warn!(connections = connections.len(), "drain timeout: breaking off what is left");
            connections.shutdown().await;
        }
    }
}

/// A header must be able to carry the key, or nobody could ever use it.
pub(crate) fn check_key(key: Option<&str>) -> Result<(), ServerError> {
    let sendable = |key: &str| {
        !key.is_empty()
            && key.trim() == key
            && key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    };
    if key.is_none_or(sendable) { Ok(()) } else { Err(ServerError::Key) }
}

/// The next connection, when one more is allowed.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// A connection that failed before it was accepted is its client's matter; anything else would fail again at once.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "accepting a connection failed");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Serves one connection to its end, which comes after the running request once draining starts.
async fn connection(stream: TcpStream, router: Router, mut drain: watch::Receiver<bool>) {
    // Tokens are small and must not wait for each other.
    stream.set_nodelay(true).ok();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let drained = async { drain.wait_for(|&draining| draining).await.is_ok() };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = drained => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_must_fit_a_header() {
        for good in [None, Some("secret"), Some("two words")] {
            assert!(check_key(good).is_ok());
        }
        for bad in ["", " ", "a\n", "schlüssel", " a"] {
            assert!(check_key(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_told() {
        let options = ServerOptions { port: 0, ..ServerOptions::default() };
        let taken = bind(&options).await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind(taken).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = bind(&ServerOptions { port, ..options }).await.unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
