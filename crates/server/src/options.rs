//! What an operator decides about a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{ServerMeter, Traces};

/// Everything that is fixed when a server starts.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// The key that clients must send as `Authorization: Bearer`; absent: everybody is served.
    pub api_key: Option<String>,
    /// Name under which the model is shown; absent: as the engine names it.
    pub model_name: Option<String>,
    /// Web pages that may use this server.
    pub cors: Cors,
    /// Bytes of a request's body at most.
    pub max_body_bytes: usize,
    /// Time in which a request's body must arrive.
    pub body_timeout: Duration,
    /// Connections open at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// After the signal to end: how long running requests may go on before they are broken off.
    pub drain_timeout: Duration,
    /// Where it counts its answers; the operator is told of those in [`Control::meter`](crate::Control::meter).
    pub meter: Arc<ServerMeter>,
    /// Where the traces of requests go; absent: there are none.
    pub traces: Option<Traces>,
}

/// Which web pages a browser lets use the server (cross-origin resource sharing).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// None.
    #[default]
    Off,
    /// Those of these origins, such as `https://chat.example.org`.
    Origins(Vec<String>),
    /// All.
    Any,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8000,
            api_key: None,
            model_name: None,
            cors: Cors::Off,
            max_body_bytes: 16 << 20,
            body_timeout: Duration::from_secs(60),
            max_connections: 1024,
            drain_timeout: Duration::from_secs(30),
            meter: Arc::default(),
            traces: None,
        }
    }
}

impl ServerOptions {
    /// Whether other machines can use a server on `address` without a key, which its operator should be warned of.
    pub fn is_open_to_strangers(&self, address: SocketAddr) -> bool {
        self.api_key.is_none() && !address.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_addresses_without_a_key_are_open() {
        let open = |address: &str, key: Option<&str>| {
            let options = ServerOptions { api_key: key.map(str::to_owned), ..ServerOptions::default() };
            options.is_open_to_strangers(address.parse().unwrap())
        };
        assert!(open("0.0.0.0:80", None));
        assert!(open("[::]:80", None));
        assert!(!open("0.0.0.0:80", Some("key")));
        assert!(!open("127.0.0.1:80", None));
        assert!(!open("[::1]:80", None));
    }
}
