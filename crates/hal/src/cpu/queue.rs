//! A queue: one thread that takes submissions in order.
//!
//! - A submission *waits* for its events, *runs*, lets its memory go, *signals*, then is *complete*. So whoever learns
//!   of the end finds the buffers free for the host, and whoever learns of the completion finds the events raised.
//! - A failed submission fails its signal events with the same error, so that a chain of submissions ends in errors
//!   instead of waiting for ever.
//! - *Closing*: what runs is finished, what has not started fails with [`DeviceError::Lost`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::in_use::InUse;
use super::program::CommandList;
use crate::command::Timing;
use crate::submission::HostSubmission;
use crate::{DeviceError, Event, Result};

/// Submissions that a queue holds; a further one waits for room.
const DEPTH: usize = 1024;
/// How long a queue without work spins before it sleeps.
const IDLE_SPIN: Duration = Duration::from_micros(50);
/// How often a queue that waits for an event looks whether the device is closing.
const CLOSING_POLL: Duration = Duration::from_millis(5);

/// What the queues of a device share.
pub(crate) struct Shared {
    pub(crate) clock: Instant,
    pub(crate) closing: AtomicBool,
    pub(crate) in_use: InUse,
}

/// One submission on its way.
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) list: Arc<CommandList>,
    pub(crate) wait: Vec<(Event, u64)>,
    pub(crate) signal: Vec<(Event, u64)>,
    pub(crate) state: Arc<HostSubmission>,
}

/// Runs command lists; made on the queue's own thread.
pub(crate) type Executor = dyn FnMut(&CommandList) -> Result<(), String>;

pub(crate) struct Queue {
    /// `None` once closed.
    sender: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    /// Starts a queue. When the system gives no thread, every submission is answered with [`DeviceError::Lost`].
    pub(crate) fn new(
        name: &str,
        shared: Arc<Shared>,
        executor: impl FnOnce() -> Box<Executor> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = sync_channel(DEPTH);
        let serve = move || {
            let mut executor = executor();
            while let Some(job) = next_job(&receiver) {
                perform(job, &shared, &mut *executor);
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(serve);
        let thread =
            thread.inspect_err(|error| tracing::error!("queue '{name}' could not be started: {error}")).ok();
        Self { sender: Some(sender), thread }
    }

    pub(crate) fn send(&self, job: Job) -> Result<(), Box<Job>> {
        match &self.sender {
            Some(sender) => sender.send(job).map_err(|refused| Box::new(refused.0)),
            None => Err(Box::new(job)),
        }
    }

    /// Ends the thread after what it runs now; [`Shared::closing`] is set already.
    pub(crate) fn close(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // Kernels' panics are caught in their run, so there is no other outcome to report.
            let _ = thread.join();
        }
    }
}

/// The next submission; `None` once the queue is closed and empty.
fn next_job(receiver: &Receiver<Job>) -> Option<Job> {
    let idle = Instant::now();
    while idle.elapsed() < IDLE_SPIN {
        match receiver.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => (0..16).for_each(|_| std::hint::spin_loop()),
        }
    }
    receiver.recv().ok()
}

fn perform(job: Job, shared: &Shared, executor: &mut Executor) {
    let Job { id, list, wait, signal, state } = job;
    let outcome = wait_for(&wait, shared).and_then(|()| {
        let failed = |reason| DeviceError::Submission { label: list.label.to_string(), reason };
        shared.in_use.start(id).map_err(failed)?;
        let start_ns = now_ns(shared);
        executor(&list).map_err(failed)?;
        Ok(Timing { start_ns, end_ns: now_ns(shared) })
    });
    shared.in_use.end(id);
    drop(list);
    for (event, value) in signal {
        match &outcome {
            Ok(_) => event.state.signal(value),
            Err(error) => event.state.fail(value, error.clone()),
        }
    }
    state.complete(outcome);
}

fn wait_for(events: &[(Event, u64)], shared: &Shared) -> Result<()> {
    let lost = || Err(DeviceError::Lost("it was dropped before the submission started".into()));
    for (event, value) in events {
        while !event.state.wait(*value, CLOSING_POLL)? {
            if shared.closing.load(Ordering::Acquire) {
                return lost();
            }
        }
    }
    if shared.closing.load(Ordering::Acquire) { lost() } else { Ok(()) }
}

fn now_ns(shared: &Shared) -> u64 {
    shared.clock.elapsed().as_nanos() as u64
}
