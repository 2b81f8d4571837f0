//! Recorded commands in the form that threads execute.
//!
//! - Everything lies in a few *flat* vectors: recording a launch allocates nothing of its own, running one touches
//!   memory in order.
//! - Workgroups are numbered through the whole program as *tickets*. A barrier ends a [`Stage`], a range of tickets;
//!   launches in one stage share its tickets, so they overlap without further work.
//! - A [`Program`] holds addresses only; the [`CommandList`] around it keeps the memory alive. Threads that look at
//!   a finished program for a moment longer therefore hold no device memory.
#![allow(unsafe_code)]

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use super::extent::Extent;
use super::invocation::{Bound, CpuKernel, Invocation};
use super::memory::extent;
use crate::{Access, CommandBuffer, DeviceError, QueueKind, Result};

/// Bytes of a copy that one ticket moves.
const COPY_CHUNK: usize = 1 << 20;

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Kernel { label: &'static str, kernel: CpuKernel },
    Copy,
}

/// One command: its work, where its bindings and parameters are, and the tickets of its workgroups.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) work: Work,
    pub(crate) bounds: Range<u32>,
    pub(crate) params: Range<u32>,
    pub(crate) tickets: Range<u64>,
}

/// Tickets between two barriers, and the first command they belong to.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) tickets: Range<u64>,
    pub(crate) first_command: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) commands: Vec<Command>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) bounds: Vec<Bound>,
    pub(crate) params: Vec<u8>,
}

// SAFETY: the addresses in `bounds` are used by tickets only, and a ticket runs while the command list that keeps
// their memory alive is pending; validation keeps tickets that run at the same time out of each other's bytes.
unsafe impl Send for Program {}
// SAFETY: as above; nothing in a program changes once it is recorded.
unsafe impl Sync for Program {}

impl Bound {
    pub(crate) fn extent(&self) -> Extent {
        extent(self.ptr, self.len as u64)
    }

    pub(crate) fn writes(&self) -> bool {
        matches!(self.access, Access::Write(_))
    }
}

impl Program {
    /// Number of tickets.
    pub(crate) fn total(&self) -> u64 {
        self.commands.last().map_or(0, |c| c.tickets.end)
    }

    pub(crate) fn bounds_of(&self, command: &Command) -> &[Bound] {
        &self.bounds[command.bounds.start as usize..command.bounds.end as usize]
    }

    /// Runs a range of tickets, which lie in one stage. `command` is a command at or before the first ticket's, and
    /// is left at the last one's.
    ///
    /// # Safety
    /// The memory of the program is alive, all earlier stages are complete, each ticket is run once, and nothing
    /// outside of this program uses the same bytes.
    pub(crate) unsafe fn run(&self, tickets: Range<u64>, command: &mut usize) {
        for ticket in tickets {
            while self.commands[*command].tickets.end <= ticket {
                *command += 1;
            }
            let current = &self.commands[*command];
            let group = (ticket - current.tickets.start) as usize;
            let bindings = self.bounds_of(current);
            match current.work {
                Work::Kernel { kernel, .. } => {
                    let params = &self.params[current.params.start as usize..current.params.end as usize];
                    kernel(&mut Invocation { group, params, bindings, taken: 0 });
                }
                Work::Copy => {
                    let (from, to) = (bindings[0], bindings[1]);
                    let start = group * COPY_CHUNK;
                    let len = COPY_CHUNK.min(from.len - start);
                    // SAFETY: both ranges lie inside live memory of the same length (checked when recorded), do not
                    // overlap, and this ticket alone moves this chunk.
                    unsafe { std::ptr::copy_nonoverlapping(from.ptr.add(start), to.ptr.add(start), len) };
                }
            }
        }
    }
}

/// Tickets of a copy of `len` bytes.
pub(crate) fn copy_groups(len: usize) -> usize {
    len.div_ceil(COPY_CHUNK)
}

/// What a command buffer is behind its handle.
pub(crate) struct CommandList {
    pub(crate) device: u64,
    pub(crate) label: Arc<str>,
    pub(crate) program: Arc<Program>,
    pub(crate) counts: Counts,
    /// Buffers in use, so that their memory lives.
    pub(crate) _keep: Vec<Arc<dyn Any + Send + Sync>>,
}

/// Commands by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Launches of kernels.
    pub dispatches: u64,
    /// Copies.
    pub copies: u64,
    /// Barriers.
    pub barriers: u64,
}

impl CommandList {
    /// The list behind a command buffer, if the queue of this device can run it.
    pub(crate) fn of(commands: &CommandBuffer, device: u64, queue: QueueKind) -> Result<Arc<Self>> {
        let list = commands.native.clone().downcast::<Self>().ok().filter(|list| list.device == device);
        let usage = |rule: &str| DeviceError::Usage(format!("submission '{}': {rule}", commands.label));
        let list = list.ok_or_else(|| usage("its commands were recorded for another device"))?;
        if queue == QueueKind::Transfer && list.counts.dispatches > 0 {
            return Err(usage("the transfer queue runs copies only; submit dispatches to the compute queue"));
        }
        Ok(list)
    }

    /// Whether it uses these bytes in a way that does not go together with an access from outside.
    pub(crate) fn conflicts_with_access(&self, bytes: Extent, writes: bool) -> bool {
        self.program.bounds.iter().any(|b| (writes || b.writes()) && b.extent().overlaps(bytes))
    }

    /// Whether both may not run at the same time.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        let (few, many) = if self.program.bounds.len() < other.program.bounds.len() {
            (self, other)
        } else {
            (other, self)
        };
        few.program.bounds.iter().any(|b| many.conflicts_with_access(b.extent(), b.writes()))
    }
}
