//! What is under way: submissions in order, held or handed to the GPU, and the host's own accesses.
//!
//! - A submission is *held* until every value that it waits for is reached or promised by a submission that the GPU has;
//!   then it is *handed over* and waits on the GPU for the rest; then it has *ended*, when all of its command buffers have;
//!   then it is *settled*: its memory is free, its events are raised or failed, and its waiters are told. So whatever has
//!   reached the GPU ends by itself.
//! - Each lane has a timeline of *ticks*, one for each command buffer. A command buffer waits for the tick before it. A
//!   failed one may never signal its own; then the host raises the timeline, and the lane goes on.
//! - Submissions of a lane are settled in order, each when what it waited for is settled too. So a failure reaches
//!   everybody who waited for it on the GPU, whichever is reported first.
//! - Nothing here has a thread. Held work moves on in the call that makes it ready: a submission, a signal of the host, or
//!   the GPU's report of an end.
//! - The GPU is a trait, so that this file is tested without one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event::{MetalEvent, Outlook};
use super::plan::Footprint;
use crate::command::Timing;
use crate::cpu::Extent;
use crate::monitor::Monitor;
use crate::submission::HostSubmission;
use crate::{DeviceError, Result, Slice};

/// Compute and transfer.
pub(crate) const LANES: usize = 2;
/// Submissions that a lane holds; a further one waits for room.
const DEPTH: usize = 1024;
/// Command buffers that a lane has on the GPU at most. A queue is made for twice as many: asking it for one more than it
/// is made for blocks, which may be the very thread that reports ends.
pub(crate) const MAX_TICKS: u64 = 256;

/// What is submitted.
pub(crate) trait Work: Send + Sync {
    fn label(&self) -> &str;
    fn footprint(&self) -> &Footprint;
    /// Command buffers; at least one.
    fn ticks(&self) -> u64;
}

/// Who executes.
pub(crate) trait Gpu<W> {
    /// Encodes a submission and commits it: `work.ticks()` command buffers from `first_tick` on, the first of which waits
    /// until each lane has come to its tick in `after`. Those that were committed report to [`Ledger::ended`].
    ///
    /// # Errors
    /// How many were committed, and why the next was not.
    fn hand_over(
        &self,
        lane: usize,
        work: &Arc<W>,
        first_tick: u64,
        after: [u64; LANES],
    ) -> Result<(), (u64, DeviceError)>;

    /// Raises the timeline of a lane to `tick` unless it stands there already.
    fn raise(&self, lane: usize, tick: u64);
}

pub(crate) struct Ledger<W> {
    state: Monitor<State<W>>,
}

struct State<W> {
    lanes: [Lane<W>; LANES],
    host: Vec<HostAccess>,
    next_access: u64,
    /// Why nothing runs any more.
    lost: Option<String>,
}

struct Lane<W> {
    /// In the order of submission: first those handed over, then those held.
    entries: VecDeque<Entry<W>>,
    handed: usize,
    /// A thread is handing over.
    busy: bool,
    /// The last tick given out.
    last_tick: u64,
    /// Every tick up to this one has ended.
    ended_through: u64,
    /// Ticks beyond it that have ended.
    ended_early: BTreeSet<u64>,
    /// End of the last submission that ran, in nanoseconds.
    last_end: u64,
}

pub(crate) struct Entry<W> {
    pub(crate) work: Arc<W>,
    pub(crate) wait: Vec<(Arc<MetalEvent>, u64)>,
    pub(crate) signal: Vec<(Arc<MetalEvent>, u64)>,
    pub(crate) state: Arc<HostSubmission>,
    first_tick: u64,
    /// The tick of its end; that of its predecessor when it was never handed over.
    last_tick: u64,
    ticks_left: u64,
    times: Option<Timing>,
    error: Option<DeviceError>,
}

struct HostAccess {
    id: u64,
    bytes: Extent,
    writes: bool,
}

/// What [`State::take`] found to do.
struct Order<W> {
    lane: usize,
    work: Arc<W>,
    first_tick: u64,
    after: [u64; LANES],
}

/// How a command buffer ended: start and end in seconds of the GPU's clock, or why it failed.
pub(crate) type End = Result<(f64, f64)>;

enum Ready {
    After([u64; LANES]),
    No,
    Never(DeviceError),
}

impl<W> Entry<W> {
    pub(crate) fn new(
        work: Arc<W>,
        wait: Vec<(Arc<MetalEvent>, u64)>,
        signal: Vec<(Arc<MetalEvent>, u64)>,
    ) -> Self {
        let state = Arc::default();
        let (first_tick, last_tick, ticks_left, times, error) = (0, 0, 0, None, None);
        Self { work, wait, signal, state, first_tick, last_tick, ticks_left, times, error }
    }

    fn ready(&self) -> Ready {
        let mut after = [0; LANES];
        for (event, value) in &self.wait {
            match event.outlook(*value) {
                Outlook::Reached => {}
                Outlook::Promised { lane, tick } => after[lane] = tick.max(after[lane]),
                Outlook::Failed(error) => return Ready::Never(error),
                Outlook::Unknown => return Ready::No,
            }
        }
        Ready::After(after)
    }

    fn fail(&mut self, error: DeviceError) {
        self.error.get_or_insert(error);
    }

    /// It has ended, and so has everything that it waited for. A failure of what it waited for becomes its own.
    fn settled(&mut self) -> bool {
        if self.ticks_left > 0 {
            return false;
        }
        for (event, value) in &self.wait {
            match event.outlook(*value) {
                Outlook::Reached => {}
                _ if self.error.is_some() => return true,
                Outlook::Failed(error) => self.error = Some(error),
                Outlook::Promised { .. } | Outlook::Unknown => return false,
            }
        }
        true
    }
}

impl<W> Default for Lane<W> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            handed: 0,
            busy: false,
            last_tick: 0,
            ended_through: 0,
            ended_early: BTreeSet::new(),
            last_end: 0,
        }
    }
}

impl<W> Default for Ledger<W> {
    fn default() -> Self {
        let lanes = std::array::from_fn(|_| Lane::default());
        Self { state: Monitor::new(State { lanes, host: Vec::new(), next_access: 0, lost: None }) }
    }
}

impl<W: Work> Ledger<W> {
    /// # Errors
    /// [`DeviceError::Lost`] once nothing runs any more.
    pub(crate) fn alive(&self) -> Result<()> {
        self.state.look(State::alive)
    }

    /// Puts a submission at the end of its lane, and hands over whatever is ready. Waits while the lane is full.
    pub(crate) fn submit(&self, gpu: &impl Gpu<W>, lane: usize, entry: Entry<W>) -> Result<()> {
        let room = |state: &State<W>| {
            (state.lost.is_some() || state.lanes[lane].entries.len() < DEPTH).then_some(())
        };
        while self.state.wait(Duration::from_secs(1), room).is_none() {}
        self.state.update(|state| {
            state.alive()?;
            let conflicts = |h: &&HostAccess| entry.work.footprint().conflicts_with(h.bytes, h.writes);
            if state.host.iter().find(conflicts).is_some() {
                return Err(DeviceError::Usage(format!(
                    "submission '{}' uses bytes that the host is reading or writing; submit it after that returned",
                    entry.work.label()
                )));
            }
            state.lanes[lane].entries.push_back(entry);
            Ok(())
        })?;
        self.pump(gpu);
        Ok(())
    }

    /// Hands over whatever has become ready.
    pub(crate) fn pump(&self, gpu: &impl Gpu<W>) {
        loop {
            let (order, settled) = self.state.update(|state| {
                let order = state.take();
                (order, state.settle())
            });
            // What ends unexecuted may be what others wait for.
            let more = !settled.is_empty();
            report(settled);
            let Some(Order { lane, work, first_tick, after }) = order else {
                if !more {
                    return;
                }
                continue;
            };
            let handed = gpu.hand_over(lane, &work, first_tick, after);
            let settled = self.state.update(|state| {
                state.lanes[lane].busy = false;
                let Err((committed, error)) = handed else { return Vec::new() };
                for tick in first_tick + committed..first_tick + work.ticks() {
                    state.end(gpu, lane, tick, Err(error.clone()));
                }
                state.settle()
            });
            report(settled);
        }
    }

    /// A command buffer has ended.
    pub(crate) fn ended(&self, gpu: &impl Gpu<W>, lane: usize, tick: u64, end: End) {
        let settled = self.state.update(|state| {
            state.end(gpu, lane, tick, end);
            state.settle()
        });
        report(settled);
        self.pump(gpu);
    }

    /// Fails everything that is held, and refuses what comes.
    pub(crate) fn close(&self, reason: &str) {
        let settled = self.state.update(|state| {
            state.lose(reason);
            state.settle()
        });
        report(settled);
    }

    /// Runs `access` on bytes that no pending submission uses in a conflicting way, and keeps it so meanwhile.
    pub(crate) fn host<R>(
        &self,
        slice: &Slice,
        bytes: Extent,
        writes: bool,
        access: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let id = self.state.update(|state| state.begin_access(slice, bytes, writes))?;
        let result = access();
        self.state.update(|state| state.host.retain(|h| h.id != id));
        result
    }
}

/// Tells the waiters of settled submissions, and lets go what these held: their memory may be the last hold on it.
fn report<W>(settled: Vec<(Entry<W>, Result<Timing>)>) {
    for (entry, outcome) in settled {
        let Entry { work, state, .. } = entry;
        drop(work);
        state.complete(outcome);
    }
}

impl<W: Work> State<W> {
    fn alive(&self) -> Result<()> {
        self.lost.as_ref().map_or(Ok(()), |reason| Err(DeviceError::Lost(reason.clone())))
    }

    fn lose(&mut self, reason: &str) {
        let reason = self.lost.get_or_insert_with(|| reason.to_owned()).clone();
        for lane in &mut self.lanes {
            for entry in lane.entries.iter_mut().skip(lane.handed) {
                entry.fail(DeviceError::Lost(reason.clone()));
                entry.last_tick = lane.last_tick;
            }
            lane.handed = lane.entries.len();
        }
    }

    /// The next submission to hand over. Those that can never run end here.
    fn take(&mut self) -> Option<Order<W>> {
        (0..LANES).find_map(|at| {
            let lane = &mut self.lanes[at];
            while !lane.busy {
                let entry = lane.entries.get_mut(lane.handed)?;
                let ticks = entry.work.ticks();
                let on_gpu = lane.last_tick - lane.ended_through;
                if on_gpu > 0 && on_gpu + ticks > MAX_TICKS {
                    return None;
                }
                let after = match entry.ready() {
                    Ready::No => return None,
                    Ready::Never(error) => {
                        entry.fail(error);
                        entry.last_tick = lane.last_tick;
                        lane.handed += 1;
                        continue;
                    }
                    Ready::After(mut after) => {
                        // What came before it on its own lane, unless that has ended already.
                        after[at] = if on_gpu > 0 { lane.last_tick } else { 0 };
                        after
                    }
                };
                entry.first_tick = lane.last_tick + 1;
                entry.last_tick = lane.last_tick + ticks;
                entry.ticks_left = ticks;
                for (event, value) in &entry.signal {
                    event.promise(*value, at, entry.last_tick);
                }
                let (work, first_tick) = (entry.work.clone(), entry.first_tick);
                lane.last_tick += ticks;
                lane.handed += 1;
                lane.busy = true;
                return Some(Order { lane: at, work, first_tick, after });
            }
            None
        })
    }

    fn end(&mut self, gpu: &impl Gpu<W>, at: usize, tick: u64, end: End) {
        let lane = &mut self.lanes[at];
        if tick <= lane.ended_through || !lane.ended_early.insert(tick) {
            return;
        }
        while lane.ended_early.remove(&(lane.ended_through + 1)) {
            lane.ended_through += 1;
        }
        gpu.raise(at, lane.ended_through);
        let mut lost = None;
        let owner = |e: &&mut Entry<W>| e.ticks_left > 0 && (e.first_tick..=e.last_tick).contains(&tick);
        if let Some(entry) = lane.entries.iter_mut().take(lane.handed).find(owner) {
            entry.ticks_left -= 1;
            match end {
                Ok((start, end)) => {
                    let (start_ns, end_ns) = super::family::nanoseconds(start, end, lane.last_end);
                    lane.last_end = lane.last_end.max(end_ns);
                    let times = entry.times.get_or_insert(Timing { start_ns, end_ns });
                    times.start_ns = times.start_ns.min(start_ns);
                    times.end_ns = times.end_ns.max(end_ns);
                }
                Err(error) => {
                    if let DeviceError::Lost(reason) = &error {
                        lost = Some(reason.clone());
                    }
                    entry.fail(error);
                }
            }
        }
        if let Some(reason) = lost {
            self.lose(&reason);
        }
    }

    /// Raises or fails the events of everything that has ended, as far as its order allows.
    fn settle(&mut self) -> Vec<(Entry<W>, Result<Timing>)> {
        let mut all = Vec::new();
        loop {
            let before = all.len();
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                while lane.handed > 0 && lane.entries.front_mut().is_some_and(Entry::settled) {
                    let Some(entry) = lane.entries.pop_front() else { break };
                    lane.handed -= 1;
                    for (event, value) in &entry.signal {
                        event.settle(*value, at, entry.last_tick, entry.error.as_ref());
                    }
                    let idle = Timing { start_ns: lane.last_end, end_ns: lane.last_end };
                    let outcome = entry.error.clone().map_or(Ok(entry.times.unwrap_or(idle)), Err);
                    all.push((entry, outcome));
                }
            }
            if all.len() == before {
                return all;
            }
        }
    }

    fn begin_access(&mut self, slice: &Slice, bytes: Extent, writes: bool) -> Result<u64> {
        let verb = if writes { "write" } else { "read" };
        let refused = |who: String| {
            let place = format!("{}+{} of {:?}", slice.offset, slice.size, slice.buffer);
            Err(DeviceError::Usage(format!("{verb} of {place}: {who}")))
        };
        let mut entries = self.lanes.iter().flat_map(|lane| &lane.entries);
        if let Some(user) = entries.find(|e| e.work.footprint().conflicts_with(bytes, writes)) {
            return refused(format!(
                "pending submission '{}' uses it; wait for that first",
                user.work.label()
            ));
        }
        if self.host.iter().any(|h| (h.writes || writes) && h.bytes.overlaps(bytes)) {
            return refused("another thread of the host accesses it at this moment".into());
        }
        self.next_access += 1;
        self.host.push(HostAccess { id: self.next_access, bytes, writes });
        Ok(self.next_access)
    }
}

#[cfg(test)]
mod tests;
