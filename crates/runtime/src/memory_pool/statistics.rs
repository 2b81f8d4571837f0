//! What a pool counts, and what it tells of itself.

use serde::Serialize;

/// Counters and gauges of a [`super::MemoryPool`] at one moment. Counters run since the pool was made or since
/// [`super::MemoryPool::reset_statistics`]; with `track_statistics` off they stand still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryPoolStatistics {
    /// Whether buffers come from heaps now.
    pub enabled: bool,
    /// Counter: buffers handed out. A reset sets it to `live`, so that `total_acquired − total_released = live` holds
    /// at every moment.
    pub total_acquired: u64,
    /// Counter: buffers whose memory came back, after the device was done with it.
    pub total_released: u64,
    /// Counter: requests for a buffer that were served, from a heap or not.
    pub total_allocations: u64,
    /// Counter: requests that the device served directly although the pool was on.
    pub fallback_allocations: u64,
    /// Counter: requests that no heap could serve although the pool was on, whatever came of them.
    pub exhaustion_events: u64,
    /// Share of `total_allocations` that created nothing on the device, 0 to 1; 1 before the first.
    pub hit_rate: f64,
    /// Bytes of heaps in use over bytes of heaps reserved, 0 to 1; 0 without heaps.
    pub utilization: f64,
    /// Gauge: heaps with a buffer in use.
    pub active_heaps: usize,
    /// Gauge: heaps reserved.
    pub total_heaps: usize,
    /// Gauge: heap slots of the settings that no buffer is in use of, reserved or not; 0 while the pool is off.
    pub available: usize,
    /// Counter: the largest buffer handed out, in megabytes of 2²⁰ bytes.
    pub largest_allocation_mb: f64,
    /// Counter: pieces of device memory asked for and got: heaps, and direct allocations, the pool being on or off.
    pub device_allocations: u64,
    /// Counter: buffers created in heaps.
    pub placed_buffers: u64,
    /// Gauge: buffers that are out: held by somebody, or pending.
    pub live: u64,
    /// Gauge: buffers that were given back while the device still used them; part of `live`.
    pub pending: u64,
    /// Gauge: bytes of the buffers that are out.
    pub bytes_in_use: u64,
    /// Gauge: bytes of device memory that the pool holds: heaps, and direct allocations that are out.
    pub bytes_reserved: u64,
}

/// Counted where it happens, under the lock that is held there anyway.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) acquired: u64,
    pub(super) released: u64,
    pub(super) served: u64,
    pub(super) hits: u64,
    pub(super) fallbacks: u64,
    pub(super) exhaustions: u64,
    pub(super) device_allocations: u64,
    pub(super) placed: u64,
    pub(super) largest: u64,
}

impl Counters {
    /// Share of served requests that created nothing.
    pub(super) fn hit_rate(&self) -> f64 {
        match self.served {
            0 => 1.0,
            served => self.hits as f64 / served as f64,
        }
    }
}

/// The books of a pool, for its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeakReport {
    /// Buffers handed out.
    pub acquired: u64,
    /// Buffers that came back.
    pub released: u64,
    /// Buffers that are out: held or pending.
    pub live: u64,
    /// `acquired − released − live`: anything but zero is a mistake of the pool. Zero with `track_statistics` off.
    pub unaccounted: i64,
    /// Labels of the buffers that somebody still holds, in the order in which they were handed out. Pending ones are not
    /// among them: they come back by themselves.
    pub held: Vec<String>,
}

impl LeakReport {
    /// Whether nobody holds a buffer and the books agree.
    pub fn is_clean(&self) -> bool {
        self.held.is_empty() && self.unaccounted == 0
    }
}
