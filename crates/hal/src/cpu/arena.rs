//! Device memory of the CPU device: anonymous mappings under a budget.
//!
//! - Memory comes from the *system*, not from the process's allocator, so that a freed heap really returns and
//!   large heaps get huge pages.
//! - The budget is checked before the system is asked: systems that overcommit refuse too late, by killing.
//! - *Unbacked* arenas have addresses and no bytes. The no-op device uses them: hazards are found by address, so the
//!   same validation runs over both.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{DeviceError, Result};

/// Alignment of every buffer: a cache line, and the widest vector register.
pub(crate) const ALIGNMENT: u64 = 64;

/// What stands behind the addresses of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    Mapped,
    Unbacked,
}

/// Counts the bytes of one device against its budget.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) budget: u64,
    backing: Backing,
    allocated: AtomicU64,
    /// Next free address for unbacked arenas.
    next_address: AtomicU64,
}

impl Meter {
    pub(crate) fn new(budget: u64, backing: Backing) -> Self {
        Self { budget, backing, allocated: AtomicU64::new(0), next_address: AtomicU64::new(ALIGNMENT) }
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Acquire)
    }

    fn out_of_memory(&self, what: &str, requested: u64) -> DeviceError {
        DeviceError::OutOfMemory {
            what: what.to_owned(),
            requested,
            available: self.budget.saturating_sub(self.allocated()),
        }
    }
}

/// One piece of device memory, returned to the system when dropped.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) base: *mut u8,
    pub(crate) size: u64,
    /// Bytes to unmap; zero for unbacked and for empty arenas.
    mapped: usize,
    meter: Arc<Meter>,
}

// SAFETY: an arena is plain memory that any thread may unmap; who may touch its bytes is decided by the device.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared arena gives out its address and its size only.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) fn new(meter: &Arc<Meter>, what: &str, size: u64) -> Result<Self> {
        let grown = meter.allocated.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            now.checked_add(size).filter(|&sum| sum <= meter.budget)
        });
        if grown.is_err() {
            return Err(meter.out_of_memory(what, size));
        }
        // From here on dropping the arena gives the bytes back to the budget.
        let dangling = std::ptr::without_provenance_mut(ALIGNMENT as usize);
        let mut arena = Self { base: dangling, size, mapped: 0, meter: meter.clone() };
        match meter.backing {
            _ if size == 0 => {}
            Backing::Unbacked => {
                let span = size.next_multiple_of(ALIGNMENT);
                let address = meter.next_address.fetch_add(span, Ordering::Relaxed);
                arena.base = std::ptr::without_provenance_mut(address as usize);
            }
            Backing::Mapped => {
                let len = usize::try_from(size).map_err(|_| meter.out_of_memory(what, size))?;
                arena.base = map(len).ok_or_else(|| meter.out_of_memory(what, size))?;
                arena.mapped = len;
            }
        }
        Ok(arena)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.mapped > 0 {
            // SAFETY: `base` and `mapped` come from one successful `mmap`, and nobody else unmaps it.
            unsafe { libc::munmap(self.base.cast(), self.mapped) };
        }
        self.meter.allocated.fetch_sub(self.size, Ordering::AcqRel);
    }
}

/// Bytes of a huge page.
#[cfg(all(target_os = "linux", not(miri)))]
const HUGE_PAGE: usize = 2 << 20;

/// Fresh zeroed memory at a page boundary; `None` when the system refuses.
fn map(len: usize) -> Option<*mut u8> {
    #[cfg(all(target_os = "linux", not(miri)))]
    if len >= HUGE_PAGE {
        return map_huge(len);
    }
    anonymous(len)
}

/// As [`map`], at the boundary of a huge page: a mapping that starts inside one has none until the next.
#[cfg(all(target_os = "linux", not(miri)))]
fn map_huge(len: usize) -> Option<*mut u8> {
    let base = anonymous(len.checked_add(HUGE_PAGE)?)?;
    let page = 4096;
    let len = len.next_multiple_of(page);
    let front = base.addr().next_multiple_of(HUGE_PAGE) - base.addr();
    let back = HUGE_PAGE - front;
    // SAFETY: `front + len + back` bytes were mapped above, all three are multiples of a page, and nobody knows of
    // them yet. What is cut off is never used; the advice may be refused, which changes nothing.
    unsafe {
        if front > 0 {
            libc::munmap(base.cast(), front);
        }
        let start = base.add(front);
        if back > 0 {
            libc::munmap(start.add(len).cast(), back);
        }
        libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE);
        Some(start)
    }
}

fn anonymous(len: usize) -> Option<*mut u8> {
    // SAFETY: an anonymous private mapping at an address that the system chooses touches no existing memory.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANON,
            -1,
            0,
        )
    };
    (base != libc::MAP_FAILED).then(|| base.cast())
}
