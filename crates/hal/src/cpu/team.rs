//! The threads that run a program together.
//!
//! - Work is taken by *ticket*: one counter says which workgroup is next, one how many are complete. A stage is open
//!   when everything before it is complete. There is no barrier that counts threads, so a worker that wakes late or
//!   loses its core holds nobody up unless it is inside a workgroup.
//! - A thread takes tickets of an open stage only. One that waits holds nothing, and whoever completes a stage goes
//!   on with the next at once: a chain of small launches stays on one warm core.
//! - Waiting is *spinning* at first, since stages last microseconds, then giving the core away, since it may be the one
//!   that the thread waited for needs.
//! - A panic in a kernel ends the run, not the thread: the remaining tickets are taken off the counter unrun.
#![allow(unsafe_code)]

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::program::Program;
use crate::monitor::lock;

/// Turns of a spinning thread before it gives its core away: some tens of microseconds.
const SPINS: u32 = 2000;
/// How long a thread without work spins before it sleeps.
const IDLE_SPIN: Duration = Duration::from_micros(50);
/// Pieces that a stage is cut into for each thread, so that fast threads can take over from slow ones.
const PIECES: u64 = 16;

/// Keeps a counter on cache lines of its own (128 bytes: lines are fetched in pairs).
#[repr(align(128))]
#[derive(Debug, Default)]
struct Apart<T>(T);

/// One execution of a program.
#[derive(Debug)]
pub(crate) struct Run {
    program: Arc<Program>,
    threads: u64,
    total: u64,
    /// Next ticket to be taken.
    next: Apart<AtomicU64>,
    /// Tickets complete.
    done: Apart<AtomicU64>,
    panic: Mutex<Option<String>>,
}

impl Run {
    /// # Safety
    /// Until [`Run::finish`] returns, the program's memory stays alive, and nothing else uses the same bytes.
    pub(crate) unsafe fn new(program: Arc<Program>, threads: usize) -> Self {
        let total = program.total();
        Self {
            program,
            threads: threads.max(1) as u64,
            total,
            next: Apart::default(),
            done: Apart::default(),
            panic: Mutex::new(None),
        }
    }

    /// Takes tickets until none is left.
    pub(crate) fn work(&self) {
        let stages = &self.program.stages;
        let (mut stage, mut command, mut chunk) = (usize::MAX, 0, 1);
        let mut pause = Pause::default();
        loop {
            let next = self.next.0.load(Ordering::Relaxed);
            if next >= self.total {
                return;
            }
            if stage == usize::MAX || stages[stage].tickets.end <= next {
                stage = stage.wrapping_add(1);
                while stages[stage].tickets.end <= next {
                    stage += 1;
                }
                command = stages[stage].first_command;
                let Range { start, end } = stages[stage].tickets;
                chunk = ((end - start) / (self.threads * PIECES)).max(1);
            }
            let Range { start, end } = stages[stage].tickets;
            if self.done.0.load(Ordering::Acquire) < start {
                pause.spin();
                continue;
            }
            let taken = end.min(next + chunk);
            if self.next.0.compare_exchange_weak(next, taken, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            pause = Pause::default();
            self.execute(next..taken, &mut command);
        }
    }

    fn execute(&self, tickets: Range<u64>, command: &mut usize) {
        let count = tickets.end - tickets.start;
        // SAFETY: the caller of `new` keeps the memory; the stage is open, so all earlier ones are complete; the
        // tickets came off the counter and are nobody else's.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { self.program.run(tickets, command) }));
        let mut complete = count;
        if let Err(payload) = result {
            lock(&self.panic).get_or_insert_with(|| message(payload.as_ref()));
            let next = self.next.0.swap(self.total, Ordering::Relaxed);
            complete += self.total - next;
        }
        self.done.0.fetch_add(complete, Ordering::AcqRel);
    }

    /// Works until none is left and waits for those who still do; says why the run failed, if it did.
    pub(crate) fn finish(&self) -> Result<(), String> {
        self.work();
        let mut pause = Pause::default();
        while self.done.0.load(Ordering::Acquire) < self.total {
            pause.spin();
        }
        lock(&self.panic).take().map_or(Ok(()), Err)
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text =
        payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    format!("a kernel panicked: {}", text.unwrap_or("(no message)"))
}

#[derive(Default)]
struct Pause {
    spins: u32,
}

impl Pause {
    fn spin(&mut self) {
        if self.spins < SPINS {
            self.spins += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Worker threads beside the one that owns the team.
#[derive(Debug)]
pub(crate) struct Team {
    desk: Arc<Desk>,
    workers: Vec<JoinHandle<()>>,
}

/// Where workers find the present run.
#[derive(Debug, Default)]
struct Desk {
    /// Counts the runs that were laid out.
    epoch: Apart<AtomicU64>,
    closed: AtomicBool,
    run: Mutex<Option<Arc<Run>>>,
}

impl Team {
    /// A team of `threads`, the caller included. Has fewer when the system gives no more.
    pub(crate) fn new(threads: usize) -> Self {
        let desk = Arc::new(Desk::default());
        let mut workers = Vec::new();
        for index in 1..threads {
            let desk = desk.clone();
            let thread = std::thread::Builder::new().name(format!("compute-{index}"));
            match thread.spawn(move || desk.serve()) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    tracing::warn!("compute thread {index} of {threads} could not be started: {error}");
                    break;
                }
            }
        }
        Self { desk, workers }
    }

    /// Runs a program on all threads.
    ///
    /// # Safety
    /// While this runs, the program's memory stays alive, and nothing else uses the same bytes.
    pub(crate) unsafe fn run(&self, program: &Arc<Program>) -> Result<(), String> {
        // SAFETY: as promised by the caller; `finish` is called before this returns.
        let run = Arc::new(unsafe { Run::new(program.clone(), self.workers.len() + 1) });
        let parallel = program.stages.iter().any(|s| s.tickets.end - s.tickets.start > 1);
        if !parallel || self.workers.is_empty() {
            return run.finish();
        }
        *lock(&self.desk.run) = Some(run.clone());
        self.desk.epoch.0.fetch_add(1, Ordering::Release);
        self.workers.iter().map(JoinHandle::thread).for_each(Thread::unpark);
        let result = run.finish();
        *lock(&self.desk.run) = None;
        result
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.desk.closed.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of kernels, so there is no other outcome to report.
            let _ = worker.join();
        }
    }
}

impl Desk {
    fn serve(&self) {
        let mut seen = 0;
        loop {
            let idle = Instant::now();
            let mut spins = 0_u32;
            loop {
                let epoch = self.epoch.0.load(Ordering::Acquire);
                if epoch != seen {
                    seen = epoch;
                    break;
                }
                if self.closed.load(Ordering::Acquire) {
                    return;
                }
                spins += 1;
                if !spins.is_multiple_of(32) || idle.elapsed() < IDLE_SPIN {
                    std::hint::spin_loop();
                } else {
                    std::thread::park();
                }
            }
            let run = lock(&self.run).clone();
            if let Some(run) = run {
                run.work();
            }
        }
    }
}
