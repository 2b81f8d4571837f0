//! A buffer that is out.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use bessemer_hal::Buffer;

use super::completion::Completion;
use super::ledger::Lease;
use super::pool::{Inner, Memory};

/// A buffer of a [`super::MemoryPool`]. Its memory returns when this is dropped, and not before the device is done with
/// it, as far as [`PoolBuffer::keep_until`] or [`super::MemoryPool::release_after`] has told.
///
/// Slices of it must not be used after that: the memory may be another's by then.
#[derive(Debug)]
pub struct PoolBuffer {
    inner: Arc<Inner>,
    buffer: Buffer,
    /// Present until it is given back.
    lease: Option<Lease<Memory>>,
    until: Option<Completion>,
}

impl PoolBuffer {
    pub(super) fn new(inner: Arc<Inner>, lease: Lease<Memory>) -> Self {
        Self { inner, buffer: lease.buffer.buffer.clone(), lease: Some(lease), until: None }
    }

    /// The device may use it until then; the last call counts. Without one, whoever drops the buffer promises that the
    /// device is done with it.
    pub fn keep_until(&mut self, done: impl Into<Completion>) {
        self.until = Some(done.into());
    }

    /// The buffer, of at least as many bytes as were asked for.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Takes the lease out, when it is of this pool.
    pub(super) fn take_lease(&mut self, pool: &Arc<Inner>) -> Option<Lease<Memory>> {
        self.lease.take_if(|_| Arc::ptr_eq(&self.inner, pool))
    }
}

impl Deref for PoolBuffer {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}

impl Drop for PoolBuffer {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.inner.give_back(vec![lease], self.until.take(), Instant::now());
        }
    }
}
