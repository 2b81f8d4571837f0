//! The operator's listener: what it tells, whom it refuses, and that what it changes is in force and disturbs nobody.

#[path = "../api/client.rs"]
#[allow(dead_code)] // The tests of the public server use all of it.
mod client;

mod calls;
mod metrics;
mod operator;
mod phases;
mod refusals;
mod streams;
mod switches;
