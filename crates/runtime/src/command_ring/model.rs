//! The ring under a scheduler that tries the turns of threads.
//!
//! The ring's own source is compiled a second time here, over shuttle's lock and condition variable, a clock that
//! stands still until a wait runs out of time, and a device whose submissions end when a thread of the schedule ends
//! them. A wait that may not run out of time and that nobody wakes is a deadlock, which fails the test.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bessemer_hal::noop::NoopDevice;
use bessemer_hal::{CommandBuffer, Device as _, DeviceError};
use shuttle::rand::Rng;
use shuttle::thread;

use super::{CommandRingConfig, CommandRingStatistics, RingWork, config, slots, statistics};

mod sync {
    use std::sync::{LockResult, PoisonError};
    use std::time::Duration;

    pub(super) use shuttle::sync::{Mutex, MutexGuard};

    /// Waits run out of time as [`super::Patience`] says.
    #[derive(Debug, Default)]
    pub(super) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Self::default()
        }

        pub(super) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(super) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            time: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            if super::runs_out(time) {
                return Ok((guard, ()));
            }
            let woken = self.0.wait(guard);
            woken.map(|guard| (guard, ())).map_err(|error| PoisonError::new((error.into_inner(), ())))
        }
    }

    #[derive(Clone, Copy, Debug)]
    pub(super) struct Instant(Duration);

    impl Instant {
        pub(super) fn now() -> Self {
            Self(super::NOW.get())
        }

        pub(super) fn elapsed(self) -> Duration {
            super::NOW.get() - self.0
        }
    }
}

mod device {
    use std::sync::Arc;
    use std::time::Duration;

    use bessemer_hal::{DeviceError, QueueKind, Result, Submit, Timing};
    use shuttle::sync::{Condvar, Mutex};

    pub(in crate::command_ring) trait Device: Send + Sync + std::fmt::Debug {
        fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission>;
    }

    /// Ends when another thread says so.
    #[derive(Clone, Debug, Default)]
    pub(in crate::command_ring) struct Submission(Arc<(Mutex<Option<Result<Timing>>>, Condvar)>);

    impl Submission {
        pub(in crate::command_ring) fn end(&self, outcome: Result<Timing>) {
            let (state, ended) = &*self.0;
            *state.lock().unwrap() = Some(outcome);
            ended.notify_all();
        }

        pub(in crate::command_ring) fn poll(&self) -> Option<Result<Timing>> {
            self.0.0.lock().unwrap().clone()
        }

        pub(in crate::command_ring) fn wait(&self, time: Duration) -> Result<Timing> {
            let (state, ended) = &*self.0;
            let mut state = state.lock().unwrap();
            loop {
                if let Some(outcome) = &*state {
                    return outcome.clone();
                }
                if super::runs_out(time) {
                    return Err(DeviceError::Timeout { what: "a submission".into(), millis: 0 });
                }
                state = ended.wait(state).unwrap();
            }
        }
    }
}

#[allow(dead_code, clippy::duplicate_mod, reason = "the ring again, with another lock, clock and device")]
#[path = "ring.rs"]
mod ring;

use device::Submission;
pub(super) use ring::{CommandRing, Slot};

/// Which waits run out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// None: whoever waits is woken.
    Endless,
    /// Those with a limit, now and then.
    Limited,
    /// Every one that does not find at once what it waits for.
    None,
}

// All threads of a schedule are coroutines of one thread.
thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    pub(super) static PATIENCE: Cell<Patience> = const { Cell::new(Patience::Endless) };
}

/// Whether a wait of at most `time` runs out of time instead of being woken; then that time has passed.
fn runs_out(time: Duration) -> bool {
    let out = time.is_zero()
        || match PATIENCE.get() {
            Patience::Endless => false,
            Patience::Limited => time <= Duration::from_secs(10) && shuttle::rand::thread_rng().gen_bool(0.5),
            Patience::None => true,
        };
    if out {
        NOW.set(NOW.get() + time);
    }
    out
}

/// The device: one queue, whose work ends in order. Its numbers are not shuttle's: looking must not change the turns.
#[derive(Debug)]
pub(super) struct Machine {
    queue: shuttle::sync::Mutex<VecDeque<Submission>>,
    arrived: shuttle::sync::Condvar,
    closed: AtomicBool,
    /// Whether it refuses and fails work now and then.
    faulty: bool,
    running: AtomicUsize,
    /// Slots that threads hold and have not used.
    held: AtomicUsize,
    /// Slots in use at most, held or running, as the test says.
    most: usize,
    submitted: AtomicU64,
    failed: AtomicU64,
}

impl device::Device for Machine {
    fn submit(
        &self,
        _: bessemer_hal::QueueKind,
        _: bessemer_hal::Submit<'_>,
    ) -> bessemer_hal::Result<Submission> {
        thread::yield_now();
        if self.faulty && shuttle::rand::thread_rng().gen_bool(0.2) {
            return Err(DeviceError::Lost("refused by the test".into()));
        }
        let submission = Submission::default();
        let mut queue = self.queue.lock().unwrap();
        self.take(&self.running);
        self.submitted.fetch_add(1, Ordering::Relaxed);
        queue.push_back(submission.clone());
        self.arrived.notify_all();
        Ok(submission)
    }
}

impl Machine {
    /// A slot is in use, once it was given out.
    fn take(&self, by: &AtomicUsize) {
        by.fetch_add(1, Ordering::Relaxed);
        let used = self.held.load(Ordering::Relaxed) + self.running.load(Ordering::Relaxed);
        assert!(used <= self.most, "{used} slots are in use, of {}", self.most);
    }

    /// Ends work until it is closed and nothing is left.
    fn run(&self) {
        for tick in 0_u64.. {
            let mut queue = self.queue.lock().unwrap();
            while queue.is_empty() && !self.closed.load(Ordering::Relaxed) {
                queue = self.arrived.wait(queue).unwrap();
            }
            let Some(oldest) = queue.pop_front() else { return };
            drop(queue);
            self.running.fetch_sub(1, Ordering::Relaxed);
            if self.faulty && shuttle::rand::thread_rng().gen_bool(0.2) {
                self.failed.fetch_add(1, Ordering::Relaxed);
                oldest.end(Err(DeviceError::Lost("failed by the test".into())));
            } else {
                oldest.end(Ok(bessemer_hal::Timing { start_ns: 10 * tick, end_ns: 10 * tick + 5 }));
            }
        }
    }

    fn close(&self) {
        let _queue = self.queue.lock().unwrap();
        self.closed.store(true, Ordering::Relaxed);
        self.arrived.notify_all();
    }
}

pub(super) struct Scene {
    pub(super) ring: CommandRing,
    pub(super) machine: Arc<Machine>,
    commands: CommandBuffer,
    pub(super) abandoned: AtomicU64,
}

pub(super) fn limits(ring_size: usize, max_wait_ms: u64) -> CommandRingConfig {
    CommandRingConfig { ring_size, max_wait_ms, log_ring_exhaustion: false, ..CommandRingConfig::default() }
}

impl Scene {
    /// A device on which `most` slots may be in use.
    pub(super) fn new(patience: Patience, config: CommandRingConfig, most: usize, faulty: bool) -> Arc<Self> {
        NOW.set(Duration::ZERO);
        PATIENCE.set(patience);
        let machine = Arc::new(Machine {
            queue: shuttle::sync::Mutex::default(),
            arrived: shuttle::sync::Condvar::default(),
            closed: AtomicBool::new(false),
            faulty,
            running: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            most,
            submitted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let commands = NoopDevice::new(None).create_encoder("test").unwrap().finish().unwrap();
        let ring = CommandRing::new(machine.clone(), config, true).unwrap();
        Arc::new(Self { ring, machine, commands, abandoned: AtomicU64::new(0) })
    }

    pub(super) fn work(&self) -> RingWork<'_> {
        RingWork { commands: &self.commands, wait: &[], signal: &[], reused: false }
    }

    pub(super) fn acquire(&self) -> Result<Slot<'_>, DeviceError> {
        let slot = self.ring.acquire_next()?;
        self.machine.take(&self.machine.held);
        thread::yield_now();
        Ok(slot)
    }

    pub(super) fn submit(&self, slot: Slot<'_>) -> Option<Submission> {
        self.machine.held.fetch_sub(1, Ordering::Relaxed);
        let outcome = slot.submit(self.work());
        self.abandoned.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
        outcome.ok()
    }

    pub(super) fn abandon(&self, slot: Slot<'_>) {
        self.machine.held.fetch_sub(1, Ordering::Relaxed);
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        drop(slot);
    }

    /// Acquires and submits, or not.
    pub(super) fn use_slots(&self, times: usize) {
        for _ in 0..times {
            let slot = self.acquire().unwrap();
            if shuttle::rand::thread_rng().gen_bool(0.2) {
                self.abandon(slot);
            } else {
                self.submit(slot);
            }
        }
    }

    /// What holds at every moment while `ring_size` stays.
    pub(super) fn look(&self) -> CommandRingStatistics {
        let now = self.ring.get_statistics();
        let free = now.ring_size.saturating_sub(now.in_flight);
        assert!(now.in_flight <= self.machine.most && now.available_count <= free, "{now:?}");
        assert!(now.total_acquired >= now.total_submitted, "{now:?}");
        assert_eq!(now.total_submitted - now.total_completed, now.in_flight as u64, "{now:?}");
        assert!(now.timeout_events <= now.wait_events, "{now:?}");
        now
    }

    /// Runs the threads and the device to their ends; every slot has come back then.
    pub(super) fn play(self: &Arc<Self>, threads: Vec<Body>) -> CommandRingStatistics {
        let device = self.start(body(|scene| scene.machine.run()));
        let running: Vec<_> = threads.into_iter().map(|body| self.start(body)).collect();
        running.into_iter().for_each(|thread| thread.join().unwrap());
        self.machine.close();
        self.ring.wait_for_all(Duration::from_secs(3600)).unwrap();
        device.join().unwrap();
        let end = self.look();
        assert_eq!((end.available_count, end.in_flight), (end.ring_size, 0), "every slot came back");
        end
    }

    pub(super) fn start(self: &Arc<Self>, body: Body) -> thread::JoinHandle<()> {
        let scene = self.clone();
        thread::spawn(move || body(&scene))
    }

    /// [`Scene::play`], after which everything is accounted for.
    pub(super) fn run(self: &Arc<Self>, threads: Vec<Body>) -> CommandRingStatistics {
        let end = self.play(threads);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(end.total_acquired, end.total_submitted + count(&self.abandoned));
        assert_eq!(end.total_submitted, count(&self.machine.submitted));
        assert_eq!(
            (end.total_completed, end.total_failed),
            (end.total_submitted, count(&self.machine.failed))
        );
        end
    }
}

/// What one thread does.
pub(super) type Body = Box<dyn FnOnce(&Scene) + Send>;

pub(super) fn body(body: impl FnOnce(&Scene) + Send + 'static) -> Body {
    Box::new(body)
}
