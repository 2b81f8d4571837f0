//! The pool on devices: the CPU device where bytes count, the no-op device where they do not.

use std::sync::Arc;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::{Fault, FaultDevice};
use bessemer_hal::noop::NoopDevice;
use bessemer_hal::{Device, DeviceError};
use proptest::prelude::*;

use super::{MemoryPool, MemoryPoolConfig, PoolBuffer};
use crate::logged::logged;
use crate::{MemoryBudget, Owner};

pub(super) const MB: u64 = 1 << 20;

/// Two heaps of 64 MB, nothing to warm up.
pub(super) fn small() -> MemoryPoolConfig {
    MemoryPoolConfig {
        heap_size_mb: 64,
        max_heap_size_mb: 64,
        num_heaps: 2,
        warmup_buffer_sizes_mb: vec![],
        ..MemoryPoolConfig::default()
    }
}

fn noop(memory_mb: u64) -> (Arc<NoopDevice>, MemoryPool) {
    let device = NoopDevice::new(Some(memory_mb * MB));
    let pool = MemoryPool::new(device.clone(), small(), None).unwrap();
    (device, pool)
}

pub(super) fn cpu() -> Arc<CpuDevice> {
    CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() })
}

#[test]
fn a_buffer_comes_back_and_goes_out_again() {
    let (device, pool) = noop(1024);
    let buffer = pool.acquire("first", 1000).unwrap();
    assert_eq!((buffer.size(), buffer.label()), (1024, "first"));
    assert_eq!(device.allocated(), 64 * MB);
    let id = buffer.id();
    drop(buffer);
    let again = pool.acquire("second", 600).unwrap();
    assert_eq!(again.id(), id, "the very same buffer");
    let now = pool.statistics();
    assert_eq!((now.total_acquired, now.total_released, now.placed_buffers), (2, 1, 1));
    assert_eq!((now.hit_rate, now.device_allocations), (0.5, 1));
}

#[test]
fn every_buffer_that_is_handed_out_has_its_time() {
    let device = FaultDevice::new(noop(1024).0);
    let pool = MemoryPool::new(device.clone(), small(), None).unwrap();
    for enabled in [true, false] {
        pool.set_enabled(enabled);
        drop((pool.acquire("one", 1000).unwrap(), pool.acquire("two", 1000).unwrap()));
    }
    let times = pool.acquire_times();
    assert_eq!((times.count, pool.statistics().total_acquired), (4, 4));
    assert!(times.sum > 0.0);
    let spent = pool.allocation_ns();
    assert!(spent as f64 / 1e9 > times.sum, "giving back takes time, too");
    pool.release_after(
        [pool.acquire("later", 10).unwrap()],
        Vec::<bessemer_hal::Submission>::new().as_slice(),
    );
    assert!(pool.allocation_ns() > spent);
    device.next(Fault::BufferMemory);
    pool.acquire("three", 1000).unwrap_err();
    assert_eq!(pool.acquire_times().count, 5, "what was not handed out took no time to hand out");
    pool.reset_statistics();
    assert_eq!(pool.acquire_times().count, 5);
}

#[test]
fn a_steady_step_creates_nothing() {
    let (device, pool) = noop(1024);
    let step = || -> Vec<u64> {
        let buffers: Vec<_> = [100, 70_000, 70_000, 5 * MB, 3]
            .iter()
            .map(|bytes| pool.acquire("step", *bytes).unwrap())
            .collect();
        buffers.iter().map(|buffer| buffer.id()).collect()
    };
    let first = step();
    pool.reset_statistics();
    for _ in 0..10 {
        let mut ids = step();
        ids.sort_unstable();
        let mut known = first.clone();
        known.sort_unstable();
        assert_eq!(ids, known);
    }
    let now = pool.statistics();
    assert_eq!((now.hit_rate, now.total_allocations), (1.0, 50));
    assert_eq!((now.device_allocations, now.placed_buffers), (0, 0));
    assert_eq!(device.allocated(), 64 * MB);
}

#[test]
fn buckets_are_powers_of_two_of_at_least_256_bytes() {
    let (_device, pool) = noop(1024);
    for (bytes, bucket) in [(0, 256), (1, 256), (256, 256), (257, 512), (MB, MB), (MB + 1, 2 * MB)] {
        assert_eq!(pool.bucket(bytes), bucket);
        assert_eq!(pool.acquire("test", bytes).unwrap().size(), bucket);
    }
    assert_eq!(pool.bucket(u64::MAX), u64::MAX, "no power of two is as large");
    assert!(matches!(pool.acquire("test", u64::MAX), Err(DeviceError::OutOfMemory { .. })));
}

#[test]
fn heaps_are_reserved_when_they_are_needed() {
    let (device, pool) = noop(1024);
    assert_eq!(device.allocated(), 0);
    let first = pool.acquire("test", 64 * MB).unwrap();
    assert_eq!(device.allocated(), 64 * MB);
    let second = pool.acquire("test", 1).unwrap();
    assert_eq!(device.allocated(), 128 * MB);
    let now = pool.statistics();
    assert_eq!((now.active_heaps, now.total_heaps, now.available), (2, 2, 0));
    assert_eq!((now.bytes_in_use, now.bytes_reserved), (64 * MB + 256, 128 * MB));
    assert_eq!(now.fallback_allocations, 0);
    drop((first, second));
    assert_eq!((pool.statistics().active_heaps, pool.statistics().available), (0, 2));
}

#[test]
fn an_exhausted_pool_allocates_directly_and_counts_it() {
    let (device, pool) = noop(1024);
    let held: Vec<_> = (0..2).map(|_| pool.acquire("held", 64 * MB).unwrap()).collect();
    let direct = pool.acquire("direct", 3 * MB + 1).unwrap();
    assert_eq!(direct.size(), 3 * MB + MB / 2, "rounded to an eighth of its bucket");
    assert_eq!(device.allocated(), 128 * MB + direct.size());
    let now = pool.statistics();
    assert_eq!((now.fallback_allocations, now.exhaustion_events, now.total_allocations), (1, 1, 3));
    assert_eq!((now.device_allocations, now.live), (3, 3));
    assert_eq!(now.bytes_reserved, 128 * MB + direct.size());
    drop(direct);
    assert_eq!(device.allocated(), 128 * MB, "it is not kept");
    drop(held);
    assert_eq!(pool.acquire("again", 3 * MB).unwrap().size(), 4 * MB);
    assert_eq!(pool.statistics().exhaustion_events, 1);
}

#[test]
fn what_no_heap_can_hold_is_allocated_directly() {
    let (device, pool) = noop(1024);
    let large = pool.acquire("large", 64 * MB + 1).unwrap();
    assert_eq!(large.size(), 80 * MB);
    assert_eq!(device.allocated(), 80 * MB, "no heap is reserved for it");
    assert_eq!((pool.statistics().fallback_allocations, pool.statistics().largest_allocation_mb), (1, 80.0));
    drop(large);
    assert_eq!(device.allocated(), 0);
    // The largest block of a heap of 96 MB is 64 MB.
    pool.reconfigure(MemoryPoolConfig { heap_size_mb: 96, max_heap_size_mb: 96, ..small() }).unwrap();
    drop(pool.acquire("block", 64 * MB).unwrap());
    assert_eq!(pool.statistics().fallback_allocations, 1);
    drop(pool.acquire("no block", 70 * MB).unwrap());
    assert_eq!(pool.statistics().fallback_allocations, 2);
}

/// A request above the size of the heaps gets a heap of its own size, which stays for the next one.
#[test]
fn a_large_request_gets_a_heap_of_its_size() {
    let (device, pool) = noop(1024);
    let settings =
        |heap_size_mb, max_heap_size_mb| MemoryPoolConfig { heap_size_mb, max_heap_size_mb, ..small() };
    pool.reconfigure(settings(64, 256)).unwrap();
    drop(pool.acquire("large", 100 * MB).unwrap());
    assert_eq!(device.allocated(), 128 * MB, "the heap stays");
    let large = pool.acquire("large", 120 * MB).unwrap();
    let small = pool.acquire("small", MB).unwrap();
    let now = pool.statistics();
    assert_eq!((now.total_heaps, now.fallback_allocations, now.device_allocations), (2, 0, 2));
    drop((large, small));
    // Small ones may live in it, and make room again.
    let held: Vec<_> = (0..3).map(|_| pool.acquire("held", 64 * MB).unwrap()).collect();
    assert_eq!((pool.statistics().fallback_allocations, device.allocated()), (0, 192 * MB));
    drop(held);
    drop(pool.acquire("large", 128 * MB).unwrap());
    assert_eq!((pool.statistics().fallback_allocations, device.allocated()), (0, 192 * MB));
    // No heap may be so large; and one that no longer may goes.
    drop(pool.acquire("too large", 257 * MB).unwrap());
    assert_eq!(pool.statistics().fallback_allocations, 1);
    pool.reconfigure(settings(64, 64)).unwrap();
    pool.poll();
    assert_eq!(device.allocated(), 64 * MB);
}

/// That the device has no memory for a large heap says nothing about others.
#[test]
fn a_large_heap_that_is_refused_keeps_no_other_away() {
    let (device, pool) = noop(170);
    pool.reconfigure(MemoryPoolConfig { max_heap_size_mb: 256, ..small() }).unwrap();
    let large = pool.acquire("large", 129 * MB).unwrap();
    assert_eq!(
        (large.size(), device.allocated()),
        (160 * MB, 160 * MB),
        "directly, and not rounded up so far"
    );
    assert!(pool.refusal().is_some());
    drop(large);
    let small = pool.acquire("small", MB).unwrap();
    assert_eq!((pool.statistics().total_heaps, device.allocated()), (1, 64 * MB));
    drop(small);
    // The same with one of 128 MB beside it.
    let large = pool.acquire("large", 80 * MB).unwrap();
    assert_eq!(pool.statistics().total_heaps, 1, "{:?}", pool.statistics());
    drop(large);
}

#[test]
fn a_refused_heap_leaves_the_pool_with_those_it_has() {
    let (device, pool) = noop(100);
    let _first = pool.acquire("first", 64 * MB).unwrap();
    let second = pool.acquire("second", MB).unwrap();
    assert_eq!(device.allocated(), 65 * MB);
    assert!(matches!(pool.refusal(), Some(DeviceError::OutOfMemory { .. })));
    let now = pool.statistics();
    assert_eq!((now.total_heaps, now.fallback_allocations), (1, 1));
    drop(second);
    pool.set_enabled(true);
    assert_eq!(pool.refusal(), None);
}

#[test]
fn no_memory_at_all_is_an_error_that_leaves_no_trace() {
    let (device, pool) = noop(10);
    let error = pool.acquire("large", 11 * MB).unwrap_err();
    assert!(matches!(&error, DeviceError::OutOfMemory { what, .. } if what.contains("large")), "{error}");
    let now = pool.statistics();
    assert_eq!((now.total_acquired, now.live, now.bytes_in_use), (0, 0, 0));
    assert_eq!((now.exhaustion_events, now.fallback_allocations), (1, 0));
    assert_eq!(device.allocated(), 0);
    assert!(pool.leak_report().is_clean());
}

#[test]
fn a_device_that_places_no_buffer_allocates_one() {
    let device = FaultDevice::new(NoopDevice::new(Some(1024 * MB)));
    let pool = MemoryPool::new(device.clone(), small(), None).unwrap();
    let held = pool.acquire("held", MB).unwrap();
    device.next(Fault::BufferMemory);
    let direct = pool.acquire("direct", 2 * MB).unwrap();
    assert_eq!(device.allocated(), 66 * MB);
    let now = pool.statistics();
    assert_eq!((now.fallback_allocations, now.placed_buffers, now.live), (1, 1, 2));
    assert_eq!(now.utilization, 1.0 / 64.0, "the block is free again");
    // Neither a place nor an allocation: an error, and the books are as before.
    device.next(Fault::BufferMemory);
    device.next(Fault::BufferMemory);
    assert!(matches!(pool.acquire("none", 4 * MB), Err(DeviceError::OutOfMemory { .. })));
    assert_eq!((pool.statistics().live, pool.statistics().fallback_allocations), (2, 1));
    drop((held, direct));
    assert_eq!(pool.acquire("whole heap", 64 * MB).unwrap().size(), 64 * MB);
    assert_eq!((pool.statistics().fallback_allocations, pool.statistics().total_heaps), (1, 1));
}

#[test]
fn idle_heaps_make_room_for_a_direct_allocation() {
    let (device, pool) = noop(130);
    drop((pool.acquire("a", 64 * MB).unwrap(), pool.acquire("b", 64 * MB).unwrap()));
    assert_eq!(device.allocated(), 128 * MB);
    let large = pool.acquire("large", 100 * MB).unwrap();
    assert_eq!(device.allocated(), large.size());
    assert_eq!(pool.statistics().total_heaps, 0);
    // They would be in the way again: none is reserved until somebody asks for it.
    drop(large);
    drop(pool.acquire("small", 1).unwrap());
    assert_eq!(pool.statistics().total_heaps, 0);
    pool.set_enabled(true);
    drop(pool.acquire("small", 1).unwrap());
    assert_eq!(pool.statistics().total_heaps, 1);
}

#[test]
fn trimming_gives_back_idle_heaps_only() {
    let (device, pool) = noop(1024);
    let kept = pool.acquire("kept", 64 * MB).unwrap();
    drop(pool.acquire("idle", 64 * MB).unwrap());
    assert_eq!(pool.trim(), 1);
    assert_eq!(device.allocated(), 64 * MB);
    assert_eq!(pool.trim(), 0);
    drop(kept);
    assert_eq!(pool.trim(), 1);
    assert_eq!(device.allocated(), 0);
    drop(pool.acquire("again", 1).unwrap());
    assert_eq!(pool.statistics().total_heaps, 1, "it may grow again");
}

#[test]
fn a_heap_in_use_serves_on_when_the_others_are_trimmed() {
    let (_device, pool) = noop(1024);
    let kept = pool.acquire("kept", MB).unwrap();
    assert_eq!(pool.trim(), 0);
    drop(pool.acquire("beside", MB).unwrap());
    let now = pool.statistics();
    assert_eq!((now.device_allocations, now.total_heaps, now.fallback_allocations), (1, 1, 0));
    drop(kept);
}

#[test]
fn off_every_buffer_is_a_device_allocation() {
    let (device, pool) = noop(1024);
    pool.set_enabled(false);
    assert!(!pool.is_enabled());
    let buffer = pool.acquire("test", 1000).unwrap();
    assert_eq!(device.allocated(), buffer.size());
    drop(buffer);
    assert_eq!(device.allocated(), 0);
    drop(pool.acquire("test", 1000).unwrap());
    let now = pool.statistics();
    assert_eq!((now.enabled, now.total_allocations, now.device_allocations), (false, 2, 2));
    assert_eq!((now.fallback_allocations, now.exhaustion_events, now.hit_rate), (0, 0, 0.0));
    assert_eq!((now.total_heaps, now.available), (0, 0));
}

#[test]
fn switching_while_buffers_are_out() {
    let (device, pool) = noop(1024);
    let (from_heap, other) = (pool.acquire("heap", MB).unwrap(), pool.acquire("other", MB).unwrap());
    drop(other);
    pool.set_enabled(false);
    assert_eq!(pool.statistics().total_heaps, 1, "a buffer is out");
    let direct = pool.acquire("direct", MB).unwrap();
    assert_eq!(device.allocated(), 65 * MB);
    drop(from_heap);
    assert_eq!(device.allocated(), MB, "the heap went with its last buffer");
    pool.set_enabled(true);
    let again = pool.acquire("again", MB).unwrap();
    assert_eq!(device.allocated(), 65 * MB);
    drop((direct, again));
    assert_eq!(device.allocated(), 64 * MB);
    assert!(pool.leak_report().is_clean());
    assert_eq!(pool.statistics().total_released, 4);
}

#[test]
fn switching_off_and_on_keeps_a_heap_that_is_in_use() {
    let (device, pool) = noop(1024);
    let held = pool.acquire("held", MB).unwrap();
    pool.set_enabled(false);
    pool.set_enabled(true);
    drop(pool.acquire("more", MB).unwrap());
    assert_eq!(device.allocated(), 64 * MB);
    assert_eq!(pool.statistics().device_allocations, 1);
    drop(held);
}

#[test]
fn other_settings_bring_other_heaps() {
    let (device, pool) = noop(1024);
    let old = pool.acquire("old", MB).unwrap();
    let bad = MemoryPoolConfig { heap_size_mb: 1, ..small() };
    assert!(pool.reconfigure(bad).unwrap_err().to_string().contains("heap_size_mb"));
    assert_eq!(pool.config(), small());
    let config = MemoryPoolConfig { heap_size_mb: 128, max_heap_size_mb: 128, ..small() };
    pool.reconfigure(config.clone()).unwrap();
    assert_eq!(pool.config(), config);
    let new = pool.acquire("new", 128 * MB).unwrap();
    assert_eq!(device.allocated(), 192 * MB);
    drop(old);
    assert_eq!(device.allocated(), 128 * MB);
    drop(new);
    assert_eq!((pool.statistics().total_heaps, pool.statistics().fallback_allocations), (1, 0));
}

#[test]
fn warm_up_places_what_the_first_step_needs() {
    let device = NoopDevice::new(Some(4096 * MB));
    let pool = MemoryPool::new(device.clone(), MemoryPoolConfig::default(), None).unwrap();
    pool.warmup().unwrap();
    let now = pool.statistics();
    assert_eq!((now.placed_buffers, now.total_heaps, now.live), (2, 1, 0));
    pool.reset_statistics();
    let step = (pool.acquire("a", 32 * MB).unwrap(), pool.acquire("b", 128 * MB).unwrap());
    assert_eq!((pool.statistics().hit_rate, pool.statistics().placed_buffers), (1.0, 0));
    drop(step);
    pool.warmup().unwrap();
    assert_eq!(pool.statistics().placed_buffers, 0, "they are there already");
    assert_eq!(device.allocated(), 256 * MB);
}

#[test]
fn a_warm_up_that_the_device_refuses_says_so() {
    let config = || MemoryPoolConfig { warmup_buffer_sizes_mb: vec![64, 64], ..small() };
    let device = NoopDevice::new(Some(100 * MB));
    let pool = MemoryPool::new(device.clone(), config(), None).unwrap();
    assert!(matches!(pool.warmup(), Err(DeviceError::OutOfMemory { .. })));
    assert_eq!(device.allocated(), 64 * MB, "the first one stays, and nothing is allocated directly");
    assert!(pool.leak_report().is_clean());
    // Beside buffers that are out there is no room, though the device refuses nothing.
    let pool = MemoryPool::new(NoopDevice::new(Some(1024 * MB)), config(), None).unwrap();
    let _held = pool.acquire("held", 1).unwrap();
    let message = pool.warmup().unwrap_err().to_string();
    assert!(message.contains("warm-up") && message.contains("Exhausted"), "{message}");
    pool.set_enabled(false);
    pool.warmup().unwrap();
    assert_eq!(pool.statistics().total_heaps, 1);
}

#[test]
fn the_budget_is_charged_for_heaps_and_direct_allocations() {
    let device = NoopDevice::new(Some(4096 * MB));
    let budget = MemoryBudget::new(100 * MB);
    let pool = MemoryPool::new(device.clone(), small(), Some(budget.clone())).unwrap();
    let held = pool.acquire("heap", 64 * MB).unwrap();
    assert_eq!(budget.gauges().workspace, 64 * MB);
    let direct = pool.acquire("direct", 8 * MB).unwrap();
    assert_eq!(budget.gauges().of(Owner::Workspace), 72 * MB, "no second heap within the budget");
    assert!(pool.refusal().unwrap().to_string().contains("memory_pool.num_heaps"));
    let message = pool.acquire("too much", 32 * MB).unwrap_err().to_string();
    assert!(message.contains("workspace") && message.contains("budget"), "{message}");
    assert_eq!((device.allocated(), budget.gauges().workspace), (72 * MB, 72 * MB));
    drop(direct);
    assert_eq!(budget.gauges().workspace, 64 * MB);
    drop(held);
    pool.set_enabled(false);
    assert_eq!((device.allocated(), budget.gauges().used()), (0, 0));
}

#[test]
fn a_pool_that_ends_with_buffers_out_logs_them() {
    let mut kept = None;
    let lines = logged(|| {
        let (_device, pool) = noop(1024);
        drop(pool.acquire("returned", 1).unwrap());
        kept = Some(pool.acquire("forgotten", 1).unwrap());
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("still out") && lines[0].contains("forgotten") && !lines[0].contains("\"returned")
    );
    // It stays good, and its memory goes with it.
    assert_eq!(kept.unwrap().size(), 256);
    let lines = logged(|| drop(noop(1024).1.acquire("returned", 1).unwrap()));
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn exhaustion_is_logged_once_in_a_while_or_not_at_all() {
    let exhaust = |log_pool_exhaustion| {
        let device = NoopDevice::new(Some(1024 * MB));
        let pool =
            MemoryPool::new(device, MemoryPoolConfig { log_pool_exhaustion, ..small() }, None).unwrap();
        for _ in 0..50 {
            drop(pool.acquire("hidden", 100 * MB).unwrap());
        }
        pool.set_enabled(false);
        drop(pool.acquire("off", 1).unwrap());
    };
    let lines = logged(|| exhaust(true));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("hidden") && lines[0].contains("TooLarge") && lines[0].contains("raise"));
    assert!(logged(|| exhaust(false)).is_empty());
    let lines = logged(|| drop(noop(10).1.acquire("small", 1).unwrap()));
    assert_eq!(lines.len(), 2, "the refused heap is told beside: {lines:?}");
    assert!(lines[0].contains("no further heap"));
}

#[test]
fn threads_keep_their_memory_apart() {
    let device = cpu();
    let pool = MemoryPool::new(device.clone(), small(), None).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (pool, device) = (&pool, &device);
            scope.spawn(move || {
                for round in 0..100_u8 {
                    let bytes = 256 << (round % 8);
                    let held: Vec<_> = (0..4_u8)
                        .map(|i| {
                            let buffer = pool.acquire("thread", bytes).unwrap();
                            device.write(&buffer.whole(), &vec![thread * 16 + i; bytes as usize]).unwrap();
                            buffer
                        })
                        .collect();
                    for (i, buffer) in held.iter().enumerate() {
                        let mut found = vec![0; bytes as usize];
                        device.read(&buffer.whole(), &mut found).unwrap();
                        assert!(found.iter().all(|byte| *byte == thread * 16 + i as u8));
                    }
                }
            });
        }
    });
    let now = pool.statistics();
    assert_eq!((now.total_acquired, now.total_released, now.live), (1600, 1600, 0));
    assert_eq!((now.fallback_allocations, now.total_heaps, now.device_allocations), (0, 1, 1));
}

#[derive(Clone, Debug)]
enum Act {
    Acquire(u64),
    Release(prop::sample::Index),
    Enable(bool),
    HeapSize(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every buffer keeps what was written to it until it is given back, whatever else happens.
    #[test]
    fn what_is_lent_is_not_written_by_others(
        script in proptest::collection::vec(
            prop_oneof![
                6 => (1_u64..300_000).prop_map(Act::Acquire),
                4 => any::<prop::sample::Index>().prop_map(Act::Release),
                1 => any::<bool>().prop_map(Act::Enable),
                1 => (64_u64..67).prop_map(Act::HeapSize),
            ],
            1..80,
        ),
    ) {
        let device = cpu();
        let pool = MemoryPool::new(device.clone(), small(), None).unwrap();
        let mut held: Vec<(PoolBuffer, u8)> = Vec::new();
        let intact = |(buffer, mark): &(PoolBuffer, u8)| {
            let mut bytes = vec![0; buffer.size() as usize];
            device.read(&buffer.whole(), &mut bytes).unwrap();
            bytes.iter().all(|byte| byte == mark)
        };
        for (at, act) in script.into_iter().enumerate() {
            match act {
                Act::Acquire(bytes) => {
                    let buffer = pool.acquire("test", bytes).unwrap();
                    prop_assert!(buffer.size() >= bytes && buffer.size() <= pool.bucket(bytes));
                    device.write(&buffer.whole(), &vec![at as u8; buffer.size() as usize]).unwrap();
                    held.push((buffer, at as u8));
                }
                Act::Release(which) if !held.is_empty() => {
                    let one = held.swap_remove(which.index(held.len()));
                    prop_assert!(intact(&one));
                }
                Act::Release(_) => {}
                Act::Enable(enabled) => pool.set_enabled(enabled),
                Act::HeapSize(heap_size_mb) => {
                    let max_heap_size_mb = 2 * heap_size_mb;
                    pool.reconfigure(MemoryPoolConfig { heap_size_mb, max_heap_size_mb, ..small() }).unwrap();
                }
            }
        }
        prop_assert!(held.iter().all(intact));
        drop(held);
        pool.set_enabled(false);
        prop_assert_eq!((pool.statistics().live, device.allocated()), (0, 0));
    }
}
