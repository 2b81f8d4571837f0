//! Device memory: counted against a budget, and addressed so that two slices use the same bytes when their addresses
//! overlap, also through buffers that alias in a heap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::failure::MemoryInUse;
use crate::{DeviceError, Result};

/// Alignment of addresses; larger than that of any buffer.
const SPAN: u64 = 1 << 16;

/// Counts the bytes of one device against its budget.
#[derive(Debug)]
pub(crate) struct Meter {
    budget: u64,
    allocated: AtomicU64,
    next_address: AtomicU64,
}

/// Bytes that were counted, and addresses of their own. Dropping it gives the bytes back.
#[derive(Debug)]
pub(crate) struct Share {
    meter: Arc<Meter>,
    bytes: u64,
    /// First of its addresses.
    pub(crate) address: u64,
}

impl Meter {
    pub(crate) fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self { budget, allocated: AtomicU64::new(0), next_address: AtomicU64::new(SPAN) })
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Acquire)
    }

    pub(crate) fn in_use(&self) -> MemoryInUse {
        MemoryInUse { allocated: self.allocated(), budget: self.budget }
    }

    pub(crate) fn out_of_memory(&self, what: &str, requested: u64) -> DeviceError {
        let available = self.budget.saturating_sub(self.allocated());
        DeviceError::OutOfMemory { what: what.to_owned(), requested, available }
    }

    /// `bytes` of the budget.
    pub(crate) fn take(self: &Arc<Self>, what: &str, bytes: u64) -> Result<Share> {
        let grown = self.allocated.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            now.checked_add(bytes).filter(|&sum| sum <= self.budget)
        });
        if grown.is_err() {
            return Err(self.out_of_memory(what, bytes));
        }
        Ok(Share { meter: self.clone(), bytes, address: self.addresses(bytes) })
    }

    /// Addresses for `bytes` that the budget does not count: memory of the host.
    pub(crate) fn uncounted(self: &Arc<Self>, bytes: u64) -> Share {
        Share { meter: self.clone(), bytes: 0, address: self.addresses(bytes) }
    }

    fn addresses(&self, bytes: u64) -> u64 {
        self.next_address.fetch_add(bytes.max(1).next_multiple_of(SPAN), Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.meter.allocated.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_to_the_budget_and_return() {
        let meter = Meter::new(100);
        let first = meter.take("a", 60).unwrap();
        let refused = meter.take("b", 41).unwrap_err();
        assert_eq!(refused, DeviceError::OutOfMemory { what: "b".into(), requested: 41, available: 40 });
        let second = meter.take("c", 40).unwrap();
        let wrapped = meter.uncounted(1 << 20);
        assert_eq!(meter.allocated(), 100);
        let ranges = [(first.address, 60), (second.address, 40), (wrapped.address, 1 << 20)];
        for (i, (start, size)) in ranges.iter().enumerate() {
            for (other, _) in &ranges[i + 1..] {
                assert!(start + size <= *other, "{ranges:?}");
            }
        }
        drop((first, wrapped));
        assert_eq!(meter.allocated(), 40);
        assert!(meter.take("d", u64::MAX).is_err());
    }
}
