//! Which bytes pending work uses.
//!
//! - Asked *by range*, not by buffer: a ring of slots in one buffer may be filled by the host behind the device's back
//!   as long as the slots differ.
//! - Nothing is counted per buffer when work is submitted. The few pending lists are searched when the host reads or
//!   writes, which is rarer than a binding.
//! - Two queues that run at the same time are checked against each other as they start. A conflict means that an event is
//!   missing, and fails the later one.

use std::sync::{Arc, Mutex};

use super::extent::Extent;
use super::program::CommandList;
use crate::monitor::lock;
use crate::{DeviceError, Result, Slice};

#[derive(Default)]
pub(crate) struct InUse {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    pending: Vec<Pending>,
    host: Vec<HostAccess>,
}

struct Pending {
    id: u64,
    list: Arc<CommandList>,
    running: bool,
}

struct HostAccess {
    id: u64,
    bytes: Extent,
    writes: bool,
}

impl Table {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl InUse {
    /// Registers a submission; the result names it.
    pub(crate) fn submit(&self, list: &Arc<CommandList>) -> Result<u64> {
        let mut table = lock(&self.table);
        if table.host.iter().any(|h| list.conflicts_with_access(h.bytes, h.writes)) {
            return Err(DeviceError::Usage(format!(
                "submission '{}' uses bytes that the host is reading or writing; submit it after that returned",
                list.label
            )));
        }
        let id = table.next();
        table.pending.push(Pending { id, list: list.clone(), running: false });
        Ok(id)
    }

    /// Marks a submission as running, unless another queue runs one that it conflicts with.
    pub(crate) fn start(&self, id: u64) -> Result<(), String> {
        let mut table = lock(&self.table);
        let Some(own) = table.pending.iter().position(|p| p.id == id) else { return Ok(()) };
        let list = &table.pending[own].list;
        if let Some(other) = table.pending.iter().find(|p| p.running && list.conflicts_with(&p.list)) {
            return Err(format!(
                "it uses the same bytes as '{}', which runs on the other queue; order them with an event",
                other.list.label
            ));
        }
        table.pending[own].running = true;
        Ok(())
    }

    pub(crate) fn end(&self, id: u64) {
        let mut table = lock(&self.table);
        let ended = table.pending.iter().position(|p| p.id == id).map(|i| table.pending.swap_remove(i));
        drop(table);
        // The list, and perhaps the last hold on its memory, goes outside of the lock.
        drop(ended);
    }

    /// Runs `access` on bytes that no pending submission uses in a conflicting way, and keeps it so meanwhile.
    pub(crate) fn host<R>(
        &self,
        slice: &Slice,
        bytes: Extent,
        writes: bool,
        access: impl FnOnce() -> R,
    ) -> Result<R> {
        let mut table = lock(&self.table);
        let verb = if writes { "write" } else { "read" };
        if let Some(user) = table.pending.iter().find(|p| p.list.conflicts_with_access(bytes, writes)) {
            return Err(DeviceError::Usage(format!(
                "{verb} of {}+{} of {:?}: pending submission '{}' uses it; wait for that first",
                slice.offset, slice.size, slice.buffer, user.list.label
            )));
        }
        if table.host.iter().any(|h| (h.writes || writes) && h.bytes.overlaps(bytes)) {
            return Err(DeviceError::Usage(format!(
                "{verb} of {}+{} of {:?}: another thread of the host accesses it at this moment",
                slice.offset, slice.size, slice.buffer
            )));
        }
        let id = table.next();
        table.host.push(HostAccess { id, bytes, writes });
        drop(table);
        let result = access();
        lock(&self.table).host.retain(|h| h.id != id);
        Ok(result)
    }
}
