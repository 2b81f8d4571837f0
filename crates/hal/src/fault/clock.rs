//! The thread that ends the waits of submissions that are to be late or to fail.
//!
//! It holds no device and takes no decision: it raises or fails events, each belonging to one submission under way, which
//! bounds their number. When the device is dropped it fails those that are left, so that nothing waits for ever.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::monitor::Monitor;
use crate::{DeviceError, Event, Submission};

/// How often a submission is asked whether it has ended.
const POLL: Duration = Duration::from_micros(500);
/// How long the thread sleeps when there is nothing to do; new work wakes it.
const IDLE: Duration = Duration::from_secs(3600);

/// When the wait for an event is over.
pub(crate) enum Turn {
    /// Raised at this time.
    At(Instant),
    /// Failed once the submission has ended.
    After(Submission, DeviceError),
}

/// An event that a submission waits for to come to 1.
pub(crate) struct Gate {
    pub(crate) event: Event,
    pub(crate) turn: Turn,
}

#[derive(Default)]
struct Inbox {
    gates: Vec<Gate>,
    closing: bool,
}

pub(crate) struct Clock {
    inbox: Arc<Monitor<Inbox>>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    /// Starts the thread. When the system gives none, events are raised and failed at once.
    pub(crate) fn new() -> Self {
        let inbox = Arc::new(Monitor::<Inbox>::default());
        let serve = {
            let inbox = inbox.clone();
            move || serve(&inbox)
        };
        let thread = std::thread::Builder::new().name("fault-clock".into()).spawn(serve);
        let thread = thread.inspect_err(|error| tracing::error!("the clock could not be started: {error}"));
        Self { inbox, thread: thread.ok() }
    }

    pub(crate) fn add(&self, gate: Gate) {
        if self.thread.is_none() {
            gate.open();
        } else {
            self.inbox.update(|inbox| inbox.gates.push(gate));
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.inbox.update(|inbox| inbox.closing = true);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // The thread runs nothing that panics, so there is no other outcome to report.
            let _ = thread.join();
        }
    }
}

impl Gate {
    fn due(&self, now: Instant) -> bool {
        match &self.turn {
            Turn::At(time) => *time <= now,
            Turn::After(submission, _) => submission.poll().is_some(),
        }
    }

    /// How long it may be left alone.
    fn sleep(&self, now: Instant) -> Duration {
        match &self.turn {
            Turn::At(time) => time.saturating_duration_since(now),
            Turn::After(..) => POLL,
        }
    }

    fn open(self) {
        match self.turn {
            Turn::At(_) => self.event.state.signal(1),
            Turn::After(_, error) => self.event.state.fail(1, error),
        }
    }
}

fn serve(inbox: &Monitor<Inbox>) {
    let mut gates = Vec::new();
    loop {
        let now = Instant::now();
        for gate in gates.extract_if(.., |gate: &mut Gate| gate.due(now)) {
            gate.open();
        }
        let sleep = gates.iter().map(|gate| gate.sleep(now)).min().unwrap_or(IDLE);
        inbox.wait(sleep, |inbox| (inbox.closing || !inbox.gates.is_empty()).then_some(()));
        let closing = inbox.update(|inbox| {
            gates.append(&mut inbox.gates);
            inbox.closing
        });
        if closing {
            break;
        }
    }
    for gate in gates {
        let lost = DeviceError::Lost("it was dropped before the submission ended".into());
        gate.event.state.fail(1, lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::HostEvent;

    #[test]
    fn gates_open_in_the_order_of_their_times() {
        let clock = Clock::new();
        let (late, soon) = (HostEvent::event(0), HostEvent::event(0));
        let begin = Instant::now();
        for (event, millis) in [(&late, 60), (&soon, 20)] {
            let turn = Turn::At(begin + Duration::from_millis(millis));
            clock.add(Gate { event: event.clone(), turn });
        }
        soon.wait(1, Duration::from_secs(10)).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(20));
        late.wait(1, Duration::from_secs(10)).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn a_clock_that_is_dropped_fails_what_is_left() {
        let clock = Clock::new();
        let event = HostEvent::event(0);
        clock.add(Gate { event: event.clone(), turn: Turn::At(Instant::now() + IDLE) });
        drop(clock);
        assert!(matches!(event.wait(1, Duration::ZERO), Err(DeviceError::Lost(_))));
    }
}
