//! A value that threads wait for changes of.
//!
//! A waiter *spins* for some microseconds before it sleeps: the waits of a decode step are that short, and waking a
//! sleeping thread costs more than they last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a waiter spins before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

#[derive(Debug, Default)]
pub(crate) struct Monitor<T> {
    state: Mutex<T>,
    changed: Condvar,
    version: AtomicU64,
}

impl<T> Monitor<T> {
    pub(crate) fn new(state: T) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new(), version: AtomicU64::new(0) }
    }

    /// Reads the value.
    pub(crate) fn look<R>(&self, view: impl FnOnce(&T) -> R) -> R {
        view(&lock(&self.state))
    }

    /// Changes the value and wakes everybody who waits.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = {
            let mut state = lock(&self.state);
            self.version.fetch_add(1, Ordering::Release);
            change(&mut state)
        };
        self.changed.notify_all();
        result
    }

    /// Waits until `view` finds what it looks for; `None` after `timeout`.
    pub(crate) fn wait<R>(&self, timeout: Duration, mut view: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let begin = Instant::now();
        let mut state = lock(&self.state);
        loop {
            if let Some(found) = view(&state) {
                return Some(found);
            }
            let version = self.version.load(Ordering::Acquire);
            drop(state);
            while self.version.load(Ordering::Acquire) == version && begin.elapsed() < SPIN.min(timeout) {
                std::hint::spin_loop();
            }
            state = lock(&self.state);
            // The version changes under the lock, so an equal one means that nothing was missed.
            if self.version.load(Ordering::Acquire) == version {
                let left = timeout.saturating_sub(begin.elapsed());
                if left.is_zero() {
                    return None;
                }
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Locks a mutex whose value is valid at every moment, so that a panic elsewhere does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
