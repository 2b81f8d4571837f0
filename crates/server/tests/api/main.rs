//! The server over real sockets, with the real engine and the model inside the program.

mod chat;
mod client;
mod completions;
mod life;
mod prefix_cache;
mod protocol;
mod stream;
mod traces;
mod wrong_requests;
