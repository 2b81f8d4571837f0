//! What is under way: submissions in order, held or handed to the GPU, and the host's own accesses.
//!
//! - A submission is *held* until every value that it waits for is reached or promised by a submission that the GPU has;
//!   then it is *pending* until its lane's timeline reaches its point; then it is *reaped*: its timestamps are read and
//!   what it used is let go.
//! - Nothing here has a thread. Held work moves on in the call that makes it ready (`pump`): a submission, or a signal of
//!   the host. Ended work is reaped by whoever asks.
//! - Host accesses are checked by *range* against all that is held or pending, so that a part of a buffer may be written
//!   while another is in use.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ash::vk;

use super::commands::CommandList;
use super::core::Core;
use super::event::{Outlook, VulkanEvent};
use super::lane::{COMPUTE, Slot, TRANSFER};
use super::submission::Task;
use super::submit;
use crate::command::Timing;
use crate::cpu::Extent;
use crate::monitor::Monitor;
use crate::{DeviceError, Result, Slice};

/// Submissions that a queue holds; a further one waits for room.
pub(crate) const DEPTH: usize = 1024;

#[derive(Default)]
pub(crate) struct Ledger {
    state: Monitor<State>,
}

#[derive(Default)]
struct State {
    queues: [Queue; 2],
    host: Vec<HostAccess>,
    next_access: u64,
}

#[derive(Default)]
pub(crate) struct Queue {
    /// In the order of submission: first those that the GPU has, then those that are held.
    entries: VecDeque<Entry>,
    /// Entries that the GPU has.
    pending: usize,
    /// The last point given out on the lane's timeline.
    pub(crate) last_point: u64,
    /// What submissions of this queue have waited for on the other lanes.
    pub(crate) seen: [u64; 3],
}

pub(crate) struct Entry {
    pub(crate) task: Arc<Task>,
    pub(crate) list: Arc<CommandList>,
    pub(crate) commands: vk::CommandBuffer,
    pub(crate) wait: Vec<(Arc<VulkanEvent>, u64)>,
    pub(crate) signal: Vec<(Arc<VulkanEvent>, u64)>,
    /// Where its timestamps are, once the GPU has it.
    pub(crate) slot: Option<Slot>,
}

struct HostAccess {
    id: u64,
    bytes: Extent,
    writes: bool,
}

/// Whether a held submission can go to the GPU.
enum Ready {
    /// When these points of the lanes are reached.
    After([u64; 3]),
    No,
    Never(DeviceError),
}

impl Entry {
    fn ready(&self) -> Ready {
        let mut points = [0; 3];
        for (event, value) in &self.wait {
            match event.outlook(*value) {
                Outlook::Reached => {}
                Outlook::Promised(lane, point) => points[lane] = point.max(points[lane]),
                Outlook::Failed(error) => return Ready::Never(error),
                Outlook::Unknown => return Ready::No,
            }
        }
        Ready::After(points)
    }

    /// Ends it unexecuted.
    fn fail(&self, error: &DeviceError) {
        for (event, value) in &self.signal {
            event.fail_value(*value, error.clone());
        }
        // Set by the ledger alone, once.
        let _ = self.task.outcome.set(Err(error.clone()));
    }
}

impl Ledger {
    /// Puts a submission at the end of its queue, and hands to the GPU whatever is ready. Waits while the queue is full.
    pub(crate) fn submit(&self, core: &Core, entry: Entry) -> Result<()> {
        let lane = entry.task.lane;
        self.wait_for_room(core, lane)?;
        let refused = self.state.update(|state| {
            let bytes = state.host.iter().find(|h| entry.list.footprint.conflicts_with(h.bytes, h.writes));
            if bytes.is_some() {
                return Err(DeviceError::Usage(format!(
                    "submission '{}' uses bytes that the host is reading or writing; submit it after that returned",
                    entry.list.label
                )));
            }
            state.queues[lane].entries.push_back(entry);
            Ok(state.pump(core))
        });
        // What failed goes, and perhaps the last hold on its memory, outside of the lock.
        refused.map(drop)
    }

    fn wait_for_room(&self, core: &Core, lane: usize) -> Result<()> {
        let full = |state: &State| state.queues[lane].entries.len() >= DEPTH;
        loop {
            core.alive()?;
            if !self.state.look(full) {
                return Ok(());
            }
            self.reap(core, lane);
            let oldest = self.state.look(|state| {
                let front = state.queues[lane].entries.front().filter(|_| full(state))?;
                Some(front.task.point.load(Ordering::Acquire))
            });
            let slice = Duration::from_millis(20);
            match oldest {
                None => return Ok(()),
                Some(0) => drop(self.state.wait(slice, |state| (!full(state)).then_some(()))),
                Some(point) => drop(core.wait_for(lane, point, slice)?),
            }
        }
    }

    /// Hands to the GPU whatever has become ready.
    pub(crate) fn pump(&self, core: &Core) {
        if self.state.look(|state| state.queues.iter().all(|q| q.entries.len() == q.pending)) {
            return;
        }
        let failed = self.state.update(|state| state.pump(core));
        drop(failed);
    }

    /// Lets go what has ended on a lane; everything, when the device is lost.
    pub(crate) fn reap(&self, core: &Core, lane: usize) {
        let Ok(done) = core.refresh(lane) else {
            let lost = self.state.update(|state| state.lose(core));
            drop(lost);
            return;
        };
        let ended = |queue: &Queue| {
            let front = queue.entries.front().map(|e| e.task.point.load(Ordering::Acquire));
            front.is_some_and(|point| point != 0 && point <= done)
        };
        if !self.state.look(|state| ended(&state.queues[lane])) {
            return;
        }
        let entries = self.state.update(|state| {
            let queue = &mut state.queues[lane];
            let mut entries = Vec::new();
            while ended(queue) {
                if let Some(entry) = queue.entries.pop_front() {
                    queue.pending -= 1;
                    complete(core, &entry);
                    entries.push(entry);
                }
            }
            entries
        });
        drop(entries);
    }

    /// Waits until `done`, which a change of the ledger brings about.
    pub(crate) fn wait_until(&self, timeout: Duration, mut done: impl FnMut() -> bool) {
        self.state.wait(timeout, |_| done().then_some(()));
    }

    /// Fails everything that is held, then waits for what the GPU has.
    pub(crate) fn close(&self, core: &Core) {
        let error = DeviceError::Lost("it was dropped before the submission started".into());
        let held = self.state.update(|state| {
            let queues = state.queues.iter_mut();
            queues
                .flat_map(|q| q.entries.split_off(q.pending))
                .inspect(|e| e.fail(&error))
                .collect::<Vec<_>>()
        });
        drop(held);
        for lane in [COMPUTE, TRANSFER] {
            let last = self.state.look(|state| state.queues[lane].last_point);
            while core.wait_for(lane, last, Duration::from_millis(100)) == Ok(false) {}
            self.reap(core, lane);
        }
    }

    /// Runs `access` on bytes that no pending submission uses in a conflicting way, and keeps it so meanwhile.
    pub(crate) fn host<R>(
        &self,
        core: &Core,
        slice: &Slice,
        bytes: Extent,
        writes: bool,
        access: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        for lane in [COMPUTE, TRANSFER] {
            self.reap(core, lane);
        }
        core.alive()?;
        let id = self.state.update(|state| state.begin_access(slice, bytes, writes))?;
        let result = access();
        self.state.update(|state| state.host.retain(|h| h.id != id));
        result
    }
}

impl State {
    fn begin_access(&mut self, slice: &Slice, bytes: Extent, writes: bool) -> Result<u64> {
        let verb = if writes { "write" } else { "read" };
        let refused = |who: String| {
            let place = format!("{}+{} of {:?}", slice.offset, slice.size, slice.buffer);
            Err(DeviceError::Usage(format!("{verb} of {place}: {who}")))
        };
        let mut entries = self.queues.iter().flat_map(|q| &q.entries);
        if let Some(user) = entries.find(|e| e.list.footprint.conflicts_with(bytes, writes)) {
            return refused(format!("pending submission '{}' uses it; wait for that first", user.list.label));
        }
        if self.host.iter().any(|h| (h.writes || writes) && h.bytes.overlaps(bytes)) {
            return refused("another thread of the host accesses it at this moment".into());
        }
        self.next_access += 1;
        self.host.push(HostAccess { id: self.next_access, bytes, writes });
        Ok(self.next_access)
    }

    /// Hands to the GPU whatever is ready, in order; the result is what failed instead.
    fn pump(&mut self, core: &Core) -> Vec<Entry> {
        let mut failed = Vec::new();
        loop {
            let mut moved = false;
            for lane in [COMPUTE, TRANSFER] {
                while let Some(outcome) = self.queues[lane].advance(core, lane) {
                    moved = true;
                    let queue = &mut self.queues[lane];
                    match outcome {
                        Ok(()) => queue.pending += 1,
                        Err(error) => {
                            failed.extend(queue.entries.remove(queue.pending).inspect(|e| e.fail(&error)))
                        }
                    }
                }
            }
            // What one queue has promised may be what the other waits for.
            if !moved {
                return failed;
            }
        }
    }

    /// The device is gone: everything under way fails.
    fn lose(&mut self, core: &Core) -> Vec<Entry> {
        let Err(error) = core.alive() else { return Vec::new() };
        let mut entries = Vec::new();
        for queue in &mut self.queues {
            queue.pending = 0;
            entries.extend(queue.entries.drain(..));
        }
        entries.iter().for_each(|entry| entry.fail(&error));
        entries
    }
}

impl Queue {
    /// Hands the first held submission to the GPU, if it is ready: `None` when it is not or there is none.
    fn advance(&mut self, core: &Core, lane: usize) -> Option<Result<()>> {
        let mut entry = self.entries.remove(self.pending)?;
        let outcome = match core.alive().map_or_else(Ready::Never, |()| entry.ready()) {
            Ready::No => None,
            Ready::Never(error) => Some(Err(error)),
            Ready::After(points) => Some(submit::hand_over(core, self, lane, &mut entry, points)),
        };
        self.entries.insert(self.pending, entry);
        outcome
    }
}

/// Reads the times of a submission that has ended.
fn complete(core: &Core, entry: &Entry) {
    let outcome = match (entry.slot, &core.clock) {
        (Some(slot), Some(clock)) => slot
            .ticks(&core.device)
            .map(|ticks| ticks.map(|t| clock.nanos(t)))
            .map(|[start_ns, end_ns]| Timing { start_ns, end_ns: end_ns.max(start_ns) })
            .map_err(|result| core.error("reading timestamps", result)),
        _ => Ok(entry.task.host_timing()),
    };
    if let Some(slot) = entry.slot {
        core.lanes[entry.task.lane].give_slot(slot);
    }
    // Set by the ledger alone, once.
    let _ = entry.task.outcome.set(outcome);
}
