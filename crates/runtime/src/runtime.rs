//! A device with its kernels and the three optimisations that carry the work on it.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bessemer_hal::{BufferDesc, Device, DeviceError, Event, Result, Slice, Submission};
use bessemer_kernels::Catalog;

use crate::standing::Standing;
use crate::step_transfers;
use crate::{
    AutoState, CommandRing, FallbackReason, Feature, MemoryBudget, MemoryPool, OptimizationStats,
    OptimizationTimes, Optimizations, Profile, Recorder, Recording, RingWork, Step, StepStatistics,
    TransferQueue,
};

/// A device, its kernels, its transient memory, its transfers and its submissions. Shared by everything that runs on it.
#[derive(Debug)]
pub struct Runtime {
    catalog: Catalog,
    budget: Arc<MemoryBudget>,
    memory_pool: Arc<MemoryPool>,
    transfer_queue: RwLock<Arc<TransferQueue>>,
    command_ring: CommandRing,
    standing: Mutex<Standing>,
    /// Raised by each step.
    steps: Event,
    counts: Counts,
    /// Number of the next batch that is prefetched.
    pub(crate) batches: AtomicU64,
    profile: Option<Arc<Profile>>,
}

#[derive(Debug, Default)]
struct Counts {
    steps: AtomicU64,
    /// What the step that was submitted last raises; 0 before the first.
    newest: AtomicU64,
    resubmitted: AtomicU64,
    encode_ns: AtomicU64,
    host_waits: AtomicU64,
    busy_ns: AtomicU64,
}

impl Runtime {
    /// A runtime on `device`, with every optimisation on, unchecked.
    ///
    /// # Errors
    /// When the device has no memory for the staging ring, or gives no events.
    pub fn new(device: Arc<dyn Device>) -> Result<Arc<Self>> {
        Self::with(device, Optimizations::on(), None)
    }

    /// A runtime with these optimisations, whose steps are profiled when there is a profile.
    ///
    /// # Errors
    /// [`DeviceError::Usage`](bessemer_hal::DeviceError::Usage) for a setting that breaks a rule; otherwise as
    /// [`Runtime::new`].
    pub fn with(
        device: Arc<dyn Device>,
        settings: Optimizations,
        profile: Option<Arc<Profile>>,
    ) -> Result<Arc<Self>> {
        settings.validate()?;
        let budget = MemoryBudget::new(device.info().limits.memory_budget);
        let pool = settings.memory_pool.config.clone();
        let pool = MemoryPool::new(device.clone(), pool, Some(budget.clone()))?;
        let ring = CommandRing::new(device.clone(), settings.command_buffer_ring.config.clone(), true)?;
        let mut standing = Standing::new(settings);
        let queue = step_transfers::transfer_queue(&device, &mut standing)?;
        let runtime = Self {
            steps: device.create_event(0)?,
            catalog: Catalog::new(device),
            budget,
            memory_pool: Arc::new(pool),
            transfer_queue: RwLock::new(Arc::new(queue)),
            command_ring: ring,
            standing: Mutex::new(standing),
            counts: Counts::default(),
            batches: AtomicU64::new(0),
            profile,
        };
        runtime.set_switches();
        Ok(Arc::new(runtime))
    }

    /// Where its steps tell what their kernels took.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        self.catalog.device()
    }

    /// Its kernels.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// How much of its memory may be held, and who holds it.
    pub fn budget(&self) -> &Arc<MemoryBudget> {
        &self.budget
    }

    /// Its transient memory.
    pub fn memory_pool(&self) -> &Arc<MemoryPool> {
        &self.memory_pool
    }

    /// Its transfers.
    pub fn transfer_queue(&self) -> Arc<TransferQueue> {
        self.transfer_queue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its submissions.
    pub fn command_ring(&self) -> &CommandRing {
        &self.command_ring
    }

    /// Whether a feature works now.
    pub fn is_active(&self, feature: Feature) -> bool {
        self.standing().is_active(feature)
    }

    /// What is wanted.
    pub fn settings(&self) -> Optimizations {
        self.standing().settings().clone()
    }

    /// Other settings, between two steps: nothing that was submitted may be unread.
    ///
    /// # Errors
    /// [`DeviceError::Usage`](bessemer_hal::DeviceError::Usage) for a setting that breaks a rule, or when the device
    /// refuses memory for the staging ring; nothing has changed then.
    pub fn apply(&self, settings: Optimizations) -> Result<()> {
        settings.validate()?;
        let before = self.settings();
        if settings.blit_queue.config != before.blit_queue.config {
            let queue = step_transfers::open_queue(self.device(), &settings.blit_queue.config)?;
            *self.transfer_queue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(queue);
        }
        let pool = settings.memory_pool.config.clone();
        self.memory_pool.reconfigure(pool)?;
        let ring = settings.command_buffer_ring.config.clone();
        self.command_ring.reconfigure(ring)?;
        let resized = settings.memory_pool.config != before.memory_pool.config;
        self.standing().set(settings);
        self.set_switches();
        if resized {
            self.warm_up();
        }
        Ok(())
    }

    /// How far the automatic setting is, between two steps: nothing that was submitted may be unread.
    pub fn set_auto(&self, auto: AutoState) {
        self.standing().set_auto(auto);
        self.set_switches();
    }

    /// Reserves the heaps of the pool and places the buffers of `warmup_buffer_sizes_mb` in them, so that the first
    /// step finds them; for when everything that stays is in its place. Does nothing while the pool is off; it warms
    /// up by itself when it is switched on or resized. Where memory is short it places what there is room for, and
    /// says so in the log.
    pub fn warm_up(&self) {
        if let Err(error) = self.memory_pool.warmup() {
            let sizes = self.memory_pool.config().warmup_buffer_sizes_mb;
            tracing::info!(
                %error,
                ?sizes,
                "the memory pool is not as warm as warmup_buffer_sizes_mb asks; the first requests allocate the rest"
            );
        }
    }

    /// Latches a feature off because of `error`; `false` when it is off already, or failures are errors.
    pub fn fall_back<E: Display>(&self, feature: Feature, error: &E) -> bool
    where
        FallbackReason: for<'e> From<&'e E>,
    {
        let latched = self.standing().latch(feature, error.into(), error.to_string());
        if latched {
            self.set_switches();
        }
        latched
    }

    /// Arms a feature again that was latched off; `false` when it was not.
    pub fn rearm(&self, feature: Feature) -> bool {
        let armed = self.standing().rearm(feature);
        self.set_switches();
        armed
    }

    /// Everything that is counted.
    pub fn optimization_stats(&self) -> OptimizationStats {
        let (enabled, verdict, features) = {
            let standing = self.standing();
            (standing.settings().enabled, standing.verdict().cloned(), standing.report())
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OptimizationStats {
            enabled,
            verdict,
            features,
            memory_pool: self.memory_pool.statistics(),
            blit_queue: self.transfer_queue().get_metrics(),
            command_buffer_ring: self.command_ring.get_statistics(),
            steps: StepStatistics {
                steps: count(&self.counts.steps),
                resubmitted: count(&self.counts.resubmitted),
                encode_ns: count(&self.counts.encode_ns),
                allocation_ns: self.memory_pool.allocation_ns(),
                host_waits: count(&self.counts.host_waits),
                busy_ns: count(&self.counts.busy_ns),
            },
            memory: self.budget.gauges(),
        }
    }

    /// What the optimisations took, event by event.
    pub fn optimization_times(&self) -> OptimizationTimes {
        let queue = self.transfer_queue();
        OptimizationTimes {
            pool_acquire: self.memory_pool.acquire_times(),
            upload: queue.upload_times(),
            download: queue.download_times(),
            ring_wait: self.command_ring.waits(),
        }
    }

    /// Starts recording a step that may be submitted more than once.
    ///
    /// # Errors
    /// When the device cannot record.
    pub fn recorder(&self, label: &str) -> Result<Recorder<'_>> {
        Recorder::new(self, label, None)
    }

    /// Starts recording a step that is submitted once: with the command ring on, what was recorded is committed every few
    /// layers, so that the device starts early.
    ///
    /// # Errors
    /// When the device cannot record.
    pub fn committing_recorder(&self, label: &str) -> Result<Recorder<'_>> {
        /// Layers between two commits where nothing else is said.
        const LAYERS: usize = 8;
        let layers = self.command_ring.config().layers_per_command_buffer.unwrap_or(LAYERS);
        // A profiled step is cut behind every launch instead.
        let commits = self.command_ring.is_enabled() && self.profile.is_none();
        Recorder::new(self, label, commits.then_some(layers))
    }

    /// Submits a recording to the compute queue.
    ///
    /// # Errors
    /// When the device refuses it, or, with the command ring off, how it failed.
    pub fn submit(&self, recording: &Arc<Recording>) -> Result<Step> {
        let reused = recording.count_submission();
        let ready = self.ready(recording.take_arrival())?;
        let reached = self.next_step(reused);
        let mut submissions = Vec::with_capacity(recording.parts.len());
        let mut refused = Ok(());
        for (at, part) in recording.parts.iter().enumerate() {
            let signal = if at + 1 == recording.parts.len() { std::slice::from_ref(&reached) } else { &[] };
            let wait = if at == 0 { ready.as_slice() } else { &[] };
            match self.command_ring.submit(RingWork { commands: &part.commands, wait, signal, reused }) {
                Ok(submission) => submissions.push(submission),
                Err(error) => {
                    refused = Err(error);
                    break;
                }
            }
        }
        // The parts before a refused one run all the same.
        recording.borrowed.used_by(&submissions);
        refused?;
        Ok(self.step(submissions, reached, recording.clone()))
    }

    /// A step whose last part was submitted.
    pub(crate) fn step(
        &self,
        submissions: Vec<Submission>,
        reached: (Event, u64),
        recording: Arc<Recording>,
    ) -> Step {
        self.counts.newest.store(reached.1, Ordering::Release);
        Step::new(self.device().clone(), submissions, reached, recording)
    }

    /// What the step submitted last raises, while that is under way.
    pub(crate) fn step_under_way(&self) -> Option<(Event, u64)> {
        let newest = self.counts.newest.load(Ordering::Acquire);
        let under_way = matches!(self.steps.wait(newest, Duration::ZERO), Err(DeviceError::Timeout { .. }));
        under_way.then(|| (self.steps.clone(), newest))
    }

    /// Submits a part of a step that is still being recorded.
    pub(crate) fn commit(&self, work: RingWork<'_>) -> Result<Submission> {
        self.command_ring.submit(work)
    }

    /// What the next step raises.
    pub(crate) fn next_step(&self, reused: bool) -> (Event, u64) {
        self.counts.resubmitted.fetch_add(u64::from(reused), Ordering::Relaxed);
        (self.steps.clone(), self.counts.steps.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn count_encoding(&self, time: Duration) {
        self.counts.encode_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Waits for a step; `alone`: no other was submitted behind it.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`](bessemer_hal::DeviceError::Timeout), or how the step failed.
    pub fn wait(&self, step: &Step, timeout: Duration, alone: bool) -> Result<()> {
        if alone && !step.is_done() {
            self.counts.host_waits.fetch_add(1, Ordering::Relaxed);
        }
        step.wait(timeout)?;
        let queue = self.transfer_queue();
        for timing in step.timings() {
            queue.note_compute(timing);
            let took = timing.end_ns.saturating_sub(timing.start_ns);
            self.counts.busy_ns.fetch_add(took, Ordering::Relaxed);
        }
        if let Some(profile) = self.profile() {
            step.tell(profile);
        }
        Ok(())
    }

    /// A buffer for data that stays, such as weights and caches. Contents are undefined.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn allocate(&self, label: &str, bytes: u64) -> Result<Slice> {
        Ok(self.device().create_buffer(&BufferDesc::own(label, bytes))?.whole())
    }

    fn set_switches(&self) {
        let active = {
            let standing = self.standing();
            Feature::ALL.map(|feature| standing.is_active(feature))
        };
        let [pool, blit, ring] = active;
        if self.memory_pool.is_enabled() != pool {
            self.memory_pool.set_enabled(pool);
            self.warm_up();
        }
        self.transfer_queue().set_enabled(blit);
        self.command_ring.set_enabled(ring);
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
