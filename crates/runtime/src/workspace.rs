//! Transient memory: buffers that live for one step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bessemer_hal::{Buffer, BufferDesc, Device, Result};

/// The smallest bucket in bytes.
const SMALLEST: u64 = 256;

/// Buffers in buckets of powers of two, lent to steps and taken back when these are done on the device.
#[derive(Debug)]
pub struct Workspace {
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: BTreeMap<u64, Vec<Buffer>>,
    statistics: WorkspaceStatistics,
}

/// Counted where it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkspaceStatistics {
    /// Buffers lent so far.
    pub acquired: u64,
    /// Buffers taken back so far.
    pub released: u64,
    /// Device allocations made because the bucket was empty.
    pub allocations: u64,
    /// Bytes that the workspace holds, lent or free.
    pub bytes: u64,
}

impl Workspace {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        Self { device, state: Mutex::default() }
    }

    /// The size of the buffer that is lent for `bytes`.
    pub fn bucket(bytes: u64) -> u64 {
        bytes.max(SMALLEST).next_power_of_two()
    }

    /// A buffer of at least `bytes`; its contents are undefined.
    ///
    /// # Errors
    /// When its bucket is empty and the device has no memory.
    pub fn acquire(&self, label: &str, bytes: u64) -> Result<Buffer> {
        let bucket = Self::bucket(bytes);
        let mut state = self.lock();
        let buffer = match state.free.get_mut(&bucket).and_then(Vec::pop) {
            Some(buffer) => buffer,
            None => {
                let buffer = self.device.create_buffer(&BufferDesc::own(label, bucket))?;
                state.statistics.allocations += 1;
                state.statistics.bytes += bucket;
                buffer
            }
        };
        state.statistics.acquired += 1;
        Ok(buffer)
    }

    /// Takes buffers back. The device must be done with them.
    pub(crate) fn release(&self, buffers: impl IntoIterator<Item = Buffer>) {
        let mut state = self.lock();
        for buffer in buffers {
            state.statistics.released += 1;
            state.free.entry(buffer.size()).or_default().push(buffer);
        }
    }

    /// What happened so far.
    pub fn statistics(&self) -> WorkspaceStatistics {
        self.lock().statistics
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
