//! Who may come in: the number of requests inside the engine, its bound, and the wait for the last one.
//!
//! The count is held by [`Ticket`]s, which give it back when they are dropped. So it stays right on every way out of
//! the engine, a lost thread included, and [`Gate::drain`] always ends.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{EngineError, Result};

/// Counts the requests inside the engine.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    closed: bool,
}

/// One request's place inside the engine.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Gate>);

impl Gate {
    /// A gate for at most `limit` requests.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Lets one request in.
    ///
    /// # Errors
    /// [`EngineError::Busy`] at the limit, [`EngineError::ShuttingDown`] behind [`Gate::close`].
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Ticket> {
        let mut state = self.lock();
        if state.closed {
            return Err(EngineError::ShuttingDown);
        }
        if state.in_flight >= self.limit {
            return Err(EngineError::Busy { in_flight: state.in_flight, limit: self.limit });
        }
        state.in_flight += 1;
        Ok(Ticket(self.clone()))
    }

    /// Requests inside.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Closes the gate and waits until nobody is inside; `false` when `timeout` passes before.
    pub(crate) fn drain(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        state.closed = true;
        while state.in_flight > 0 {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_given_back() {
        let gate = Gate::new(2);
        let first = gate.enter().unwrap();
        let _second = gate.enter().unwrap();
        assert!(matches!(gate.enter(), Err(EngineError::Busy { in_flight: 2, limit: 2 })));
        drop(first);
        assert_eq!(gate.in_flight(), 1);
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn drain_refuses_and_waits() {
        let gate = Gate::new(2);
        let ticket = gate.enter().unwrap();
        assert!(!gate.drain(Duration::from_millis(5)));
        assert!(matches!(gate.enter(), Err(EngineError::ShuttingDown)));
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(ticket);
        });
        assert!(gate.drain(Duration::MAX));
        other.join().unwrap();
    }
}
