//! The OpenAI-compatible HTTP server, and the listener for its operator.
//!
//! - **Validated whole**: a body is taken apart field by field; what is unknown, wrong or would change the answer
//!   without being supported is an error that names the field. Nothing is ignored silently.
//! - **Text is made here**: the chat template and the tokenizer run once for each prompt, on a thread that may block,
//!   and the engine's streams are read only as fast as the client reads. What a slow client has not read waits in the
//!   engine's channel, which is bounded by the request's own `max_tokens`.
//! - **A client that leaves cancels**: its connection owns the response, the response the engine's streams, and
//!   dropping these frees their blocks within a step.
//! - **Connections are ours**: the accept loop drives hyper itself and not through `axum::serve`, which has no limit on
//!   connections, no timeout on headers, and cannot end connections that outlive the drain timeout.
//! - **Nothing of a user is logged** from level `info` up: ids, routes, status, token counts and times only.
//! - **JSON must be declared** (`Content-Type: application/json`), so that a foreign web page cannot post to a server
//!   on the user's machine without the browser asking first.
//!
//! Known gaps: no TLS; put a proxy in front for other machines. A client that keeps its connection and never reads
//! keeps one of `max_connections` until the server ends, though nothing of the engine.

mod admin;
mod app;
mod auth;
mod body;
mod control;
mod cors;
mod echo;
mod generation;
mod id;
mod meter;
mod observe;
/// Public for the fuzz targets; no part of the interface.
#[doc(hidden)]
pub mod openai;
mod options;
mod prompt;
mod routes;
mod server;
mod sse;
mod traces;

/// Public for the fuzz targets; no part of the interface.
#[doc(hidden)]
pub use admin::rpc;
pub use admin::{AdminOptions, bind_admin, serve_admin};
pub use control::{Applied, Control, ControlError, Phase};
pub use meter::{ErrorKind, ServerMeter};
pub use options::{Cors, ServerOptions};
pub use server::{ServerError, bind, serve, serve_on};
pub use traces::{Traces, TracesError};
