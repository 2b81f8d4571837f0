//! The locks of the ring, named in one place so that the model check puts its own under the same code.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
