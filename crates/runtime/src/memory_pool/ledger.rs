//! The pool's books: heaps, leases, returns that wait for the device, counters. It decides and never acts: no call here
//! touches a device, so that all of them may be made under one short lock.
//!
//! What a decision makes superfluous, a buffer or a heap, is put to [`Ledger::scrap`], to be dropped once the lock is
//! released: dropping it may be a call of the device.

use std::collections::BTreeMap;

use bessemer_hal::DeviceError;

use super::config::largest_block;
use super::heap::Heap;
use super::statistics::{Counters, LeakReport, MemoryPoolStatistics};

/// What the settings mean for the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) heap_bytes: u64,
    /// A request that no such heap can hold gets a heap of its own size, up to this.
    pub(super) largest_heap: u64,
    pub(super) max_heaps: usize,
    /// Smallest bucket in bytes, a power of two.
    pub(super) smallest: u64,
    /// Whether counters count.
    pub(super) track: bool,
}

/// `H` is the device's heap, `B` its buffer, `C` what tells that the device is done with some.
#[derive(Debug)]
pub(super) struct Ledger<H, B, C> {
    limits: Limits,
    enabled: bool,
    /// In the order in which they were reserved.
    heaps: BTreeMap<u64, Slot<H, B>>,
    /// The smallest heap that the device refused, and why. It is not asked for one as large again until the settings
    /// change.
    refusal: Option<(u64, DeviceError)>,
    /// Labels of the leases that are held.
    held: BTreeMap<u64, String>,
    pending: BTreeMap<u64, (C, Vec<Lease<B>>)>,
    pending_leases: u64,
    /// Bytes of the leases that are out, and how much of that was allocated directly.
    out_bytes: u64,
    direct_bytes: u64,
    next: u64,
    counters: Counters,
    scrap: Vec<Scrap<H, B>>,
}

#[derive(Debug)]
struct Slot<H, B> {
    heap: Heap<H, B>,
    /// Whether it gives out blocks; one that does not goes when it is empty.
    open: bool,
    /// Whether it was made for requests that no other heap can hold.
    large: bool,
}

/// Something to be dropped outside the lock.
#[derive(Debug)]
pub(super) enum Scrap<H, B> {
    Heap(H),
    Buffer(B),
}

/// A buffer that is out. Whoever has it has the only right to its memory, and must bring it back.
#[derive(Debug)]
pub(super) struct Lease<B> {
    id: u64,
    /// Heap and offset; absent for a direct allocation.
    place: Option<(u64, u64)>,
    pub(super) bytes: u64,
    pub(super) buffer: B,
}

/// A block that is taken and has no buffer yet. It ends in [`Ledger::placed`] or [`Ledger::not_placed`].
#[derive(Debug)]
pub(super) struct Grant<H> {
    heap: u64,
    pub(super) handle: H,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// What a request needs.
#[derive(Debug)]
pub(super) enum Decision<H, B, C> {
    /// Nothing.
    Hit(Lease<B>),
    /// A buffer in this block.
    Place(Grant<H>),
    /// First of all, to ask whether the device is done with these. Then to decide again.
    Ask(Vec<(u64, C)>),
    /// A heap of so many bytes, handed to [`Ledger::install`]. Then to decide again.
    Grow(u64),
    /// A direct allocation.
    Direct(Why),
}

/// Why a request is not served from a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The pool is off.
    Off,
    /// No heap may be so large.
    TooLarge,
    /// All heaps are in use.
    Exhausted,
    /// The device created no buffer in a block.
    NotPlaced,
}

impl<H: Clone, B, C: Clone> Ledger<H, B, C> {
    pub(super) fn new(limits: Limits, enabled: bool) -> Self {
        Self {
            limits,
            enabled,
            heaps: BTreeMap::new(),
            refusal: None,
            held: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_leases: 0,
            out_bytes: 0,
            direct_bytes: 0,
            next: 0,
            counters: Counters::default(),
            scrap: Vec::new(),
        }
    }

    /// Decides on a request for a bucket. `asked`: whether the returns that wait have been looked at for it.
    pub(super) fn decide(&mut self, label: &str, bytes: u64, asked: bool) -> Decision<H, B, C> {
        let size = self.limits.heap_bytes.max(bytes);
        let fits =
            self.enabled && bytes <= largest_block(self.limits.heap_bytes.max(self.limits.largest_heap));
        if fits && let Some(lease) = self.reuse(label, bytes) {
            return Decision::Hit(lease);
        }
        if !asked && !self.pending.is_empty() {
            return Decision::Ask(self.waiting());
        }
        if !self.enabled {
            return Decision::Direct(Why::Off);
        }
        if !fits {
            return Decision::Direct(Why::TooLarge);
        }
        if let Some(grant) = self.place(bytes) {
            return Decision::Place(grant);
        }
        let refused = self.refusal.as_ref().is_some_and(|(refused, _)| size >= *refused);
        if self.open().count() < self.limits.max_heaps && !refused {
            return Decision::Grow(size);
        }
        match self.reclaim(bytes) {
            Some(grant) => Decision::Place(grant),
            None => Decision::Direct(Why::Exhausted),
        }
    }

    fn open(&self) -> impl Iterator<Item = &Slot<H, B>> {
        self.heaps.values().filter(|slot| slot.open)
    }

    fn reuse(&mut self, label: &str, bytes: u64) -> Option<Lease<B>> {
        let mut open = self.heaps.iter_mut().filter(|(_, slot)| slot.open);
        let (place, buffer) = open.find_map(|(id, slot)| {
            let (offset, buffer) = slot.heap.reuse(bytes)?;
            Some(((*id, offset), buffer))
        })?;
        self.count(|counters| counters.hits += 1);
        Some(self.lend(label, Some(place), bytes, buffer))
    }

    fn place(&mut self, bytes: u64) -> Option<Grant<H>> {
        self.heaps.iter_mut().filter(|(_, slot)| slot.open).find_map(|(id, slot)| {
            let offset = slot.heap.place(bytes)?;
            Some(Grant { heap: *id, handle: slot.heap.handle.clone(), offset, bytes })
        })
    }

    /// Makes room by evicting idle buffers, and only when that does make room.
    fn reclaim(&mut self, bytes: u64) -> Option<Grant<H>> {
        let open = self.heaps.iter().filter(|(_, slot)| slot.open);
        let windows = open.filter_map(|(id, slot)| Some((slot.heap.window(bytes)?, *id)));
        let (window, id) = windows.min_by_key(|(window, id)| (window.since, *id))?;
        let evicted = self.heaps.get_mut(&id)?.heap.evict(window);
        self.scrap.extend(evicted.into_iter().map(Scrap::Buffer));
        self.place(bytes)
    }

    fn lend(&mut self, label: &str, place: Option<(u64, u64)>, bytes: u64, buffer: B) -> Lease<B> {
        let id = self.tick();
        self.held.insert(id, label.to_owned());
        self.out_bytes += bytes;
        self.count(|counters| {
            counters.acquired += 1;
            counters.served += 1;
            counters.largest = counters.largest.max(bytes);
        });
        Lease { id, place, bytes, buffer }
    }

    /// The block of a grant has its buffer.
    pub(super) fn placed(&mut self, label: &str, grant: Grant<H>, buffer: B) -> Lease<B> {
        self.count(|counters| counters.placed += 1);
        self.lend(label, Some((grant.heap, grant.offset)), grant.bytes, buffer)
    }

    /// The block of a grant got no buffer.
    pub(super) fn not_placed(&mut self, grant: Grant<H>) {
        if let Some(slot) = self.heaps.get_mut(&grant.heap) {
            slot.heap.free(grant.offset);
        }
        self.scrap.push(Scrap::Heap(grant.handle));
        self.sweep();
    }

    /// The heaps could not serve a request, or are off.
    pub(super) fn missed(&mut self, why: Why) {
        if why != Why::Off {
            self.count(|counters| counters.exhaustions += 1);
        }
    }

    /// A request was served by a direct allocation of `bytes`.
    pub(super) fn allocated(&mut self, label: &str, bytes: u64, buffer: B, why: Why) -> Lease<B> {
        self.count(|counters| {
            counters.device_allocations += 1;
            counters.fallbacks += u64::from(why != Why::Off);
        });
        self.direct_bytes += bytes;
        self.lend(label, None, bytes, buffer)
    }

    /// The device's answer to [`Decision::Grow`].
    pub(super) fn install(&mut self, bytes: u64, heap: Result<H, DeviceError>) {
        match heap {
            Err(error) => {
                let refused = self.refusal.as_ref().map_or(bytes, |(refused, _)| bytes.min(*refused));
                self.refusal = Some((refused, error));
            }
            Ok(handle) => {
                self.count(|counters| counters.device_allocations += 1);
                let id = self.tick();
                let heap = Heap::new(handle, bytes, self.limits.smallest);
                self.heaps.insert(id, Slot { heap, open: true, large: bytes > self.limits.heap_bytes });
                // The settings may have changed while the device was asked.
                self.sweep();
            }
        }
    }

    /// The device is done with a buffer.
    pub(super) fn give_back(&mut self, lease: Lease<B>) {
        self.held.remove(&lease.id);
        self.out_bytes -= lease.bytes;
        self.count(|counters| counters.released += 1);
        let now = self.tick();
        let Some((id, offset)) = lease.place else {
            self.direct_bytes -= lease.bytes;
            self.scrap.push(Scrap::Buffer(lease.buffer));
            return;
        };
        match self.heaps.get_mut(&id) {
            Some(slot) if slot.open => slot.heap.rest(offset, lease.buffer, now),
            slot => {
                if let Some(slot) = slot {
                    slot.heap.free(offset);
                }
                self.scrap.push(Scrap::Buffer(lease.buffer));
                self.sweep();
            }
        }
    }

    /// Nobody holds these buffers any more, but the device may use them until `done`.
    pub(super) fn defer(&mut self, leases: Vec<Lease<B>>, done: C) {
        for lease in &leases {
            self.held.remove(&lease.id);
        }
        self.pending_leases += leases.len() as u64;
        let ticket = self.tick();
        self.pending.insert(ticket, (done, leases));
    }

    /// What the device is to be asked about.
    pub(super) fn waiting(&self) -> Vec<(u64, C)> {
        self.pending.iter().map(|(ticket, (done, _))| (*ticket, done.clone())).collect()
    }

    /// The device is done with what waits under a ticket; nothing when another thread has said so before.
    pub(super) fn settle(&mut self, ticket: u64) {
        if let Some((_, leases)) = self.pending.remove(&ticket) {
            self.pending_leases -= leases.len() as u64;
            for lease in leases {
                self.give_back(lease);
            }
        }
    }

    /// Turns the heaps on or off. Buffers that are out stay good.
    pub(super) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        self.refusal = None;
        self.sweep();
    }

    /// Other settings. Heaps that do not fit them go when their buffers are back.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        let counts_again = limits.track && !self.limits.track;
        self.limits = limits;
        self.refusal = None;
        if counts_again {
            self.reset();
        }
        self.sweep();
    }

    /// Gives back the heaps that nobody uses, and tells how many. `shortage`: what the device has no memory for; it is
    /// not asked for another heap then, or the two would take turns.
    pub(super) fn trim(&mut self, shortage: Option<DeviceError>) -> usize {
        let before = self.heaps.len();
        self.refusal = shortage.map(|error| (0, error)).or(self.refusal.take());
        for slot in self.heaps.values_mut() {
            slot.open &= slot.heap.in_use() > 0;
        }
        self.close();
        before - self.heaps.len()
    }

    /// Opens the heaps that fit the settings, closes the others, removes those that are closed and empty.
    fn sweep(&mut self) {
        let mut room = if self.enabled { self.limits.max_heaps } else { 0 };
        for slot in self.heaps.values_mut() {
            let size = slot.heap.size();
            let fits = match slot.large {
                false => size == self.limits.heap_bytes,
                true => size > self.limits.heap_bytes && size <= self.limits.largest_heap,
            };
            slot.open = room > 0 && fits;
            room -= usize::from(slot.open);
        }
        self.close();
    }

    fn close(&mut self) {
        let scrap = &mut self.scrap;
        for slot in self.heaps.values_mut().filter(|slot| !slot.open) {
            scrap.extend(slot.heap.evict_all().into_iter().map(Scrap::Buffer));
        }
        let empty = |slot: &Slot<H, B>| !slot.open && slot.heap.in_use() == 0;
        let gone: Vec<u64> = self.heaps.iter().filter(|(_, slot)| empty(slot)).map(|(id, _)| *id).collect();
        scrap.extend(
            gone.iter().filter_map(|id| self.heaps.remove(id)).map(|slot| Scrap::Heap(slot.heap.handle)),
        );
    }

    /// Takes what is to be dropped.
    pub(super) fn scrap(&mut self) -> Vec<Scrap<H, B>> {
        std::mem::take(&mut self.scrap)
    }

    /// Whether buffers come from heaps.
    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Why the device gave no further heap.
    pub(super) fn refusal(&self) -> Option<&DeviceError> {
        self.refusal.as_ref().map(|(_, error)| error)
    }

    /// Starts counting anew.
    pub(super) fn reset(&mut self) {
        self.counters = Counters { acquired: self.live(), ..Counters::default() };
    }

    fn live(&self) -> u64 {
        self.held.len() as u64 + self.pending_leases
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn count(&mut self, change: impl FnOnce(&mut Counters)) {
        if self.limits.track {
            change(&mut self.counters);
        }
    }

    pub(super) fn statistics(&self) -> MemoryPoolStatistics {
        let counters = &self.counters;
        let reserved: u64 = self.heaps.values().map(|slot| slot.heap.size()).sum();
        let in_use: u64 = self.heaps.values().map(|slot| slot.heap.in_use()).sum();
        let open_and_active = self.open().filter(|slot| slot.heap.in_use() > 0).count();
        MemoryPoolStatistics {
            enabled: self.enabled,
            total_acquired: counters.acquired,
            total_released: counters.released,
            total_allocations: counters.served,
            fallback_allocations: counters.fallbacks,
            exhaustion_events: counters.exhaustions,
            hit_rate: counters.hit_rate(),
            utilization: if reserved == 0 { 0.0 } else { in_use as f64 / reserved as f64 },
            active_heaps: self.heaps.values().filter(|slot| slot.heap.in_use() > 0).count(),
            total_heaps: self.heaps.len(),
            available: if self.enabled { self.limits.max_heaps - open_and_active } else { 0 },
            largest_allocation_mb: counters.largest as f64 / super::config::MB as f64,
            device_allocations: counters.device_allocations,
            placed_buffers: counters.placed,
            live: self.live(),
            pending: self.pending_leases,
            bytes_in_use: self.out_bytes,
            bytes_reserved: reserved + self.direct_bytes,
        }
    }

    pub(super) fn leak_report(&self) -> LeakReport {
        let Counters { acquired, released, .. } = self.counters;
        let live = self.live();
        let unaccounted = if self.limits.track { acquired as i64 - released as i64 - live as i64 } else { 0 };
        LeakReport { acquired, released, live, unaccounted, held: self.held.values().cloned().collect() }
    }

    /// Whether the parts of the books agree; `leases` are all that are out and not pending.
    #[cfg(test)]
    pub(super) fn check<'a>(&'a self, leases: impl IntoIterator<Item = &'a Lease<B>>)
    where
        B: 'a,
    {
        let leases: Vec<_> =
            leases.into_iter().chain(self.pending.values().flat_map(|(_, leases)| leases)).collect();
        for (id, slot) in &self.heaps {
            slot.heap.check();
            let mut out: Vec<(u64, u64)> = leases
                .iter()
                .filter_map(|lease| lease.place.filter(|(heap, _)| heap == id).map(|(_, o)| (o, lease.bytes)))
                .collect();
            out.sort_unstable();
            assert!(slot.heap.used().eq(out), "blocks in use are the leases");
            assert!(slot.open || slot.heap.in_use() > 0, "a closed and empty heap stayed");
            assert!(slot.open || slot.heap.idle() == 0, "a closed heap kept an idle buffer");
        }
        let statistics = self.statistics();
        assert_eq!(statistics.live, leases.len() as u64);
        assert_eq!(statistics.bytes_in_use, leases.iter().map(|lease| lease.bytes).sum::<u64>());
        assert_eq!(self.leak_report().unaccounted, 0);
    }
}
