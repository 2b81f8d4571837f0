//! What the handle asks of the engine's thread.

use std::sync::mpsc::SyncSender;

use bessemer_runtime::Optimizations;

use crate::gate::Ticket;
use crate::reply_stream::Outlet;
use crate::stop::StopRules;
use crate::{Result, Sampling};

/// One thing that it asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Generate(Generate),
    Evaluate(Evaluate),
    /// Other optimisations, and whom to tell.
    Configure(Box<Optimizations>, SyncSender<Result<()>>),
    /// Look at [`crate::worker::Shared::stop`].
    Wake,
}

/// A checked request.
#[derive(Debug)]
pub(crate) struct Generate {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampling: Sampling,
    pub(crate) seed: u64,
    pub(crate) rules: StopRules,
    /// Of the prefix cache.
    pub(crate) salt: Box<str>,
    pub(crate) outlet: Outlet,
}

/// A request for the logits after each of `ids`.
#[derive(Debug)]
pub(crate) struct Evaluate {
    pub(crate) ids: Vec<u32>,
    pub(crate) reply: SyncSender<Result<Vec<f32>>>,
    pub(crate) ticket: Ticket,
}
