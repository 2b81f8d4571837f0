//! The pool itself: the books under a lock, the device outside it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use bessemer_hal::{Buffer, BufferDesc, Device, DeviceError, Heap, HeapDesc, Place, Result};

use super::completion::Completion;
use super::config::{MB, MemoryPoolConfig};
use super::exhaustion_log::ExhaustionLog;
use super::ledger::{Decision, Grant, Lease, Ledger, Limits, Why};
use super::pool_buffer::PoolBuffer;
use super::statistics::{LeakReport, MemoryPoolStatistics};
use super::sync::Mutex;
use crate::SettingError;
use crate::histogram::{DEVICE_TIMES, Histogram, HistogramSnapshot};
use crate::memory_budget::{MemoryBudget, Owner, Reservation};

/// The smallest bucket in bytes, where the device's alignment does not ask for more.
const SMALLEST: u64 = 256;

/// Transient memory: buffers in heaps, lent and taken back. See the module's documentation.
///
/// Life, in call order: [`MemoryPool::new`]; [`MemoryPool::warmup`], if the first step shall not pay for the heaps;
/// [`MemoryPool::acquire`] and dropping the [`PoolBuffer`], or [`MemoryPool::release_after`];
/// [`MemoryPool::leak_report`] when everything should be back. Dropping the pool logs that report unless it is clean;
/// buffers that are out then stay good.
#[derive(Debug)]
pub struct MemoryPool {
    inner: Arc<Inner>,
}

/// What buffers that are out hold on to.
#[derive(Debug)]
pub(super) struct Inner {
    device: Arc<dyn Device>,
    budget: Option<Arc<MemoryBudget>>,
    smallest: u64,
    state: Mutex<State>,
    /// Held by the one thread that asks the device for a heap; taken before `state`, never inside it.
    growth: Mutex<()>,
    acquire_times: Histogram,
    /// Nanoseconds in which buffers were taken back.
    return_ns: AtomicU64,
}

#[derive(Debug)]
struct State {
    config: MemoryPoolConfig,
    ledger: Ledger<Reserved, Memory, Completion>,
    log: ExhaustionLog,
}

/// A heap with its share of the budget.
#[derive(Clone, Debug)]
pub(super) struct Reserved {
    heap: Heap,
    _share: Option<Arc<Reservation>>,
}

/// A buffer; one with an allocation of its own has a share of the budget.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) buffer: Buffer,
    _share: Option<Reservation>,
}

impl MemoryPool {
    /// A pool on `device`, switched on, without any heap yet. What it takes from the device counts against `budget`.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn new(
        device: Arc<dyn Device>,
        config: MemoryPoolConfig,
        budget: Option<Arc<MemoryBudget>>,
    ) -> Result<Self, SettingError> {
        config.validate()?;
        let smallest = device.info().limits.alignment.max(SMALLEST).next_power_of_two();
        let ledger = Ledger::new(limits(&config, smallest), true);
        let state = Mutex::new(State { config, ledger, log: ExhaustionLog::default() });
        let growth = Mutex::new(());
        let acquire_times = Histogram::new(&DEVICE_TIMES);
        let return_ns = AtomicU64::new(0);
        let inner = Inner { device, budget, smallest, state, growth, acquire_times, return_ns };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The size of the block that serves a request for `bytes`. A direct allocation has between `bytes` and this.
    pub fn bucket(&self, bytes: u64) -> u64 {
        self.inner.bucket(bytes)
    }

    /// A buffer of at least `bytes`; its contents are undefined. `label` names it in reports of this pool; a buffer that
    /// is used again keeps the label on the device that it was created with.
    ///
    /// # Errors
    /// When neither a heap nor the device has memory, or the budget allows no more.
    pub fn acquire(&self, label: &str, bytes: u64) -> Result<PoolBuffer> {
        let begin = Instant::now();
        let lease = match self.inner.serve(label, self.bucket(bytes)) {
            Ok(lease) => lease,
            Err(why) => self.inner.direct(label, bytes, why)?,
        };
        self.inner.acquire_times.observe_time(begin.elapsed());
        Ok(PoolBuffer::new(self.inner.clone(), lease))
    }

    /// Gives buffers back that the device may use until `done`. Nothing is waited for: the device is asked again when
    /// memory is needed, and by [`MemoryPool::poll`].
    pub fn release_after(&self, buffers: impl IntoIterator<Item = PoolBuffer>, done: impl Into<Completion>) {
        let begin = Instant::now();
        let done = done.into();
        let mut leases = Vec::new();
        for mut buffer in buffers {
            match buffer.take_lease(&self.inner) {
                Some(lease) => leases.push(lease),
                // Of another pool: it goes back there, after the same event.
                None => buffer.keep_until(done.clone()),
            }
        }
        self.inner.give_back(leases, Some(done), begin);
    }

    /// Takes back what the device is done with; does not wait.
    pub fn poll(&self) {
        self.inner.poll();
    }

    /// Places the buffers of `warmup_buffer_sizes_mb`, reserving the heaps for them, and gives them back, so that the
    /// first step finds them. They are not written. They count as buffers acquired and released. Does nothing while the
    /// pool is off.
    ///
    /// # Errors
    /// When the device refuses a heap or the buffers do not fit beside those in use; what was placed stays.
    pub fn warmup(&self) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        let sizes = self.config().warmup_bytes();
        let mut placed = Vec::with_capacity(sizes.len());
        for size in sizes {
            match self.inner.serve("warmup", self.bucket(size)) {
                Ok(lease) => placed.push(PoolBuffer::new(self.inner.clone(), lease)),
                Err(Why::Off) => return Ok(()),
                Err(why) => return Err(self.inner.no_room(size, why)),
            }
        }
        Ok(())
    }

    /// Turns the heaps on or off, from the next request on. Buffers that are out stay good and come back as ever; a heap
    /// goes with its last buffer. Turning them on asks the device again for a heap that it refused before.
    pub fn set_enabled(&self, enabled: bool) {
        self.inner.with(|state| state.ledger.set_enabled(enabled));
        self.poll();
    }

    /// Whether buffers come from heaps.
    pub fn is_enabled(&self) -> bool {
        self.inner.with(|state| state.ledger.enabled())
    }

    /// Other settings, from the next request on. Heaps of another size, and those above `num_heaps`, go when their
    /// buffers are back.
    ///
    /// # Errors
    /// The first setting that breaks a rule; nothing has changed then.
    pub fn reconfigure(&self, config: MemoryPoolConfig) -> Result<(), SettingError> {
        config.validate()?;
        let limits = limits(&config, self.inner.smallest);
        self.inner.with(|state| {
            state.config = config;
            state.ledger.set_limits(limits);
        });
        Ok(())
    }

    /// The settings.
    pub fn config(&self) -> MemoryPoolConfig {
        self.inner.with(|state| state.config.clone())
    }

    /// Gives the heaps back that nobody uses at the moment, and tells how many.
    pub fn trim(&self) -> usize {
        self.poll();
        self.inner.with(|state| state.ledger.trim(None))
    }

    /// Why the device gave no further heap, if it refused one since the settings changed last.
    pub fn refusal(&self) -> Option<DeviceError> {
        self.inner.with(|state| state.ledger.refusal().cloned())
    }

    /// What happened so far, and what is out now.
    pub fn statistics(&self) -> MemoryPoolStatistics {
        self.poll();
        self.inner.with(|state| state.ledger.statistics())
    }

    /// How long [`MemoryPool::acquire`] took each time that it gave a buffer, from a heap or not, in seconds. It is never
    /// reset.
    pub fn acquire_times(&self) -> HistogramSnapshot {
        self.inner.acquire_times.snapshot()
    }

    /// Nanoseconds in which the host got buffers and gave them back: books, device allocations and their freeing, from the
    /// calls to their returns. It is never reset.
    pub fn allocation_ns(&self) -> u64 {
        self.inner.acquire_times.sum() + self.inner.return_ns.load(Ordering::Relaxed)
    }

    /// Starts counting anew. Buffers that are out count as acquired.
    pub fn reset_statistics(&self) {
        self.inner.with(|state| state.ledger.reset());
    }

    /// Returns that wait for the device, without asking it.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.inner.with(|state| state.ledger.waiting().len())
    }

    /// The books: what is out, and whether everything is accounted for.
    pub fn leak_report(&self) -> LeakReport {
        self.poll();
        self.inner.with(|state| state.ledger.leak_report())
    }
}

impl Drop for MemoryPool {
    fn drop(&mut self) {
        let report = self.leak_report();
        if !report.is_clean() {
            tracing::warn!(
                acquired = report.acquired,
                released = report.released,
                live = report.live,
                unaccounted = report.unaccounted,
                held = ?report.held,
                "memory pool: buffers are still out at shutdown"
            );
        }
    }
}

impl Inner {
    fn bucket(&self, bytes: u64) -> u64 {
        let bytes = bytes.max(self.smallest);
        bytes.checked_next_power_of_two().unwrap_or(bytes)
    }

    /// The books. Nothing inside may call the device; what falls out of use is dropped after the lock.
    fn with<R>(&self, view: impl FnOnce(&mut State) -> R) -> R {
        let (result, scrap) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (view(&mut state), state.ledger.scrap())
        };
        drop(scrap);
        result
    }

    /// A buffer in a heap, or why there is none.
    fn serve(&self, label: &str, bytes: u64) -> Result<Lease<Memory>, Why> {
        let mut decision = self.with(|state| state.ledger.decide(label, bytes, false));
        loop {
            decision = match decision {
                Decision::Hit(lease) => return Ok(lease),
                Decision::Place(grant) => return self.place(label, grant),
                Decision::Direct(why) => return Err(why),
                Decision::Ask(waiting) => {
                    self.settle(waiting);
                    self.with(|state| state.ledger.decide(label, bytes, true))
                }
                Decision::Grow(_) => self.grow(label, bytes),
            };
        }
    }

    /// Reserves a heap if it still takes one, and decides again.
    ///
    /// The device is asked under `growth`: threads that need a heap wait for the one that is being reserved instead of
    /// reserving one each. That is one call of the device, and at most `num_heaps` times; requests that need no heap do
    /// not come here.
    fn grow(&self, label: &str, bytes: u64) -> Decision<Reserved, Memory, Completion> {
        let _growing = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        match self.with(|state| state.ledger.decide(label, bytes, true)) {
            Decision::Grow(size) => {
                let heap = self.reserve(size);
                if let Err(error) = &heap {
                    tracing::warn!(%error, size, "memory pool: no further heap; it goes on with those it has");
                }
                self.with(|state| {
                    state.ledger.install(size, heap);
                    state.ledger.decide(label, bytes, true)
                })
            }
            decision => decision,
        }
    }

    fn reserve(&self, size: u64) -> Result<Reserved> {
        let share = self.share(size)?.map(Arc::new);
        let heap = self.device.create_heap(&HeapDesc { label: "memory_pool", size })?;
        Ok(Reserved { heap, _share: share })
    }

    fn share(&self, bytes: u64) -> Result<Option<Reservation>> {
        Ok(self.budget.as_ref().map(|budget| budget.reserve(Owner::Workspace, bytes)).transpose()?)
    }

    fn place(&self, label: &str, grant: Grant<Reserved>) -> Result<Lease<Memory>, Why> {
        let place = Place::Heap(&grant.handle.heap, grant.offset);
        match self.device.create_buffer(&BufferDesc { label, size: grant.bytes, place }) {
            Ok(buffer) => {
                let memory = Memory { buffer, _share: None };
                Ok(self.with(|state| state.ledger.placed(label, grant, memory)))
            }
            Err(error) => {
                tracing::debug!(%error, label, "memory pool: no buffer in a heap");
                self.with(|state| state.ledger.not_placed(grant));
                Err(Why::NotPlaced)
            }
        }
    }

    /// A direct allocation, which is freed when it comes back.
    fn direct(&self, label: &str, bytes: u64, why: Why) -> Result<Lease<Memory>> {
        self.tell(label, bytes, why);
        let bucket = self.bucket(bytes);
        // Not the whole bucket, which may be twice as much; but requests of about one size can share it.
        let size = bytes.max(1).checked_next_multiple_of((bucket / 8).max(self.smallest)).unwrap_or(bytes);
        let memory = match self.own(label, size.min(bucket)) {
            Err(error @ DeviceError::OutOfMemory { .. }) => {
                match self.with(|state| state.ledger.trim(Some(error.clone()))) {
                    0 => return Err(error),
                    // The heaps that nobody used are free now.
                    _ => self.own(label, size.min(bucket))?,
                }
            }
            outcome => outcome?,
        };
        let size = memory.buffer.size();
        Ok(self.with(|state| state.ledger.allocated(label, size, memory, why)))
    }

    fn own(&self, label: &str, size: u64) -> Result<Memory> {
        let share = self.share(size)?;
        let buffer = self.device.create_buffer(&BufferDesc::own(label, size))?;
        Ok(Memory { buffer, _share: share })
    }

    /// Counts a request that the heaps did not serve, and logs it now and then.
    fn tell(&self, label: &str, bytes: u64, why: Why) {
        let line = self.with(|state| {
            state.ledger.missed(why);
            if why == Why::Off || !state.config.log_pool_exhaustion {
                return None;
            }
            let suppressed = state.log.admit(Instant::now())?;
            Some((suppressed, state.ledger.statistics(), state.ledger.refusal().cloned()))
        });
        if let Some((suppressed, now, refusal)) = line {
            tracing::warn!(
                label,
                bytes,
                ?why,
                refusal = refusal.map(|error| error.to_string()),
                heaps = now.total_heaps,
                bytes_in_use = now.bytes_in_use,
                suppressed,
                "memory pool exhausted: a direct allocation serves; raise memory_pool.heap_size_mb or num_heaps"
            );
        }
    }

    /// Why a warm-up buffer has no place.
    fn no_room(&self, bytes: u64, why: Why) -> DeviceError {
        let (refusal, now) = self.with(|state| (state.ledger.refusal().cloned(), state.ledger.statistics()));
        refusal.unwrap_or_else(|| DeviceError::OutOfMemory {
            what: format!("a warm-up buffer of the memory pool ({why:?})"),
            requested: bytes,
            available: now.bytes_reserved.saturating_sub(now.bytes_in_use),
        })
    }

    /// Takes leases back: now, or once the device is done with them. The work for that began at `begin`.
    pub(super) fn give_back(&self, leases: Vec<Lease<Memory>>, done: Option<Completion>, begin: Instant) {
        match done.filter(|done| !done.is_done()) {
            None => self.with(|state| leases.into_iter().for_each(|lease| state.ledger.give_back(lease))),
            Some(_) if leases.is_empty() => {}
            Some(done) => {
                self.poll();
                self.with(|state| state.ledger.defer(leases, done));
            }
        }
        let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.return_ns.fetch_add(took, Ordering::Relaxed);
    }

    fn poll(&self) {
        self.settle(self.with(|state| state.ledger.waiting()));
    }

    /// Asks the device outside the lock; a return that another thread settles meanwhile is settled once.
    fn settle(&self, waiting: Vec<(u64, Completion)>) {
        let done: Vec<u64> =
            waiting.into_iter().filter(|(_, done)| done.is_done()).map(|(ticket, _)| ticket).collect();
        if !done.is_empty() {
            self.with(|state| done.into_iter().for_each(|ticket| state.ledger.settle(ticket)));
        }
    }
}

fn limits(config: &MemoryPoolConfig, smallest: u64) -> Limits {
    Limits {
        heap_bytes: config.heap_size_mb * MB / smallest * smallest,
        largest_heap: config.max_heap_size_mb * MB / smallest * smallest,
        max_heaps: config.num_heaps,
        smallest,
        track: config.track_statistics,
    }
}
