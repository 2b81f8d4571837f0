//! What a steady decode step costs, by the counters.

use std::sync::Arc;
use std::time::Duration;

use bessemer_engine::{Engine, OptimizationStats, Optimizations, Reply};
use bessemer_hal::Device;
use bessemer_hal::cpu::{CpuDevice, CpuOptions};

use crate::support::{cpu, engine, on_vulkan, request, slow_compute, together};

/// The counters before and after the last `steps` tokens of one request, of which `before` others came first.
fn around(engine: &Engine, before: usize, steps: usize) -> (OptimizationStats, OptimizationStats) {
    let stats = || engine.optimization_stats().unwrap();
    let mut wanted = request(0, engine.info().vocab, before + steps + 4);
    wanted.prompt.truncate(3);
    let mut stream = engine.submit(wanted).unwrap();
    let mut at = Vec::new();
    for token in 0..before + steps {
        assert!(matches!(stream.blocking_next(), Some(Reply::Token(_))));
        if token + 1 == before {
            at.push(stats());
        }
    }
    at.push(stats());
    let end = at.pop().unwrap();
    (at.pop().unwrap(), end)
}

fn a_steady_step_costs_next_to_nothing(device: &Arc<dyn Device>, before: usize, steps: usize) {
    let engine = engine(device, "default", Optimizations::on());
    // Once before, so that the shapes are known.
    around(&engine, before, steps);
    let (start, end) = around(&engine, before, steps);
    let (ring, ring_end) = (start.command_buffer_ring, end.command_buffer_ring);
    let submitted = ring_end.total_submitted - ring.total_submitted;
    let run = end.steps.steps - start.steps.steps;
    assert!(run >= steps as u64 - 4 && run <= steps as u64 + 4, "{run} steps for {steps} tokens");
    assert!(submitted <= 2 * run, "{submitted} submissions for {run} steps");
    assert_eq!(end.steps.resubmitted - start.steps.resubmitted, run, "every step is a recording of before");
    assert_eq!(end.steps.encode_ns, start.steps.encode_ns);
    assert_eq!(
        end.steps.host_waits, start.steps.host_waits,
        "the device has its next step before it ends one"
    );
    let (pool, pool_end) = (start.memory_pool, end.memory_pool);
    assert_eq!(pool_end.device_allocations, pool.device_allocations);
    assert_eq!(pool_end.placed_buffers, pool.placed_buffers);
    assert_eq!(pool_end.fallback_allocations, 0);
    assert!(end.blit_queue.bytes_up > start.blit_queue.bytes_up);
    assert!(end.blit_queue.bytes_down > start.blit_queue.bytes_down);
    assert!(end.steps.busy_ns > start.steps.busy_ns);
}

#[test]
fn on_the_cpu() {
    a_steady_step_costs_next_to_nothing(&cpu(), 20, 60);
}

#[test]
fn on_vulkan_too() {
    on_vulkan(|device| a_steady_step_costs_next_to_nothing(&device, 12, 12));
}

/// The same counters on the plain path: they can tell the difference.
#[test]
fn the_plain_path_allocates_waits_and_records() {
    let device = cpu();
    let engine = engine(&device, "default", Optimizations::off());
    let (start, end) = around(&engine, 10, 20);
    let run = end.steps.steps - start.steps.steps;
    assert_eq!(end.steps.resubmitted, 0);
    assert!(end.steps.encode_ns > start.steps.encode_ns);
    assert!(end.memory_pool.device_allocations - start.memory_pool.device_allocations >= 5 * run);
    let waits = end.command_buffer_ring.wait_events - start.command_buffer_ring.wait_events;
    assert!(waits >= run, "{waits} waits in {run} steps");
    assert!(end.blit_queue.plain_transfers - start.blit_queue.plain_transfers >= 2 * run);
}

/// The heaps are there before the first request comes, at the start and when the pool is switched on.
#[test]
fn the_first_prefill_of_a_warm_pool_asks_the_device_for_nothing() {
    let allocated = |engine: &Engine| engine.optimization_stats().unwrap().memory_pool.device_allocations;
    let of_first_prefill = |engine: &Engine| {
        let before = allocated(engine);
        together(engine, 1, 1);
        allocated(engine) - before
    };
    let mut cold = Optimizations::on();
    cold.memory_pool.config.warmup_buffer_sizes_mb.clear();
    let device = cpu();
    let without = engine(&device, "default", cold);
    assert_eq!((allocated(&without), of_first_prefill(&without)), (0, 1), "the first heap");
    let with = engine(&device, "default", Optimizations::on());
    assert_eq!((allocated(&with), of_first_prefill(&with)), (1, 0), "32 and 128 MB are in one heap");

    let switched = engine(&device, "default", Optimizations::off());
    assert_eq!(allocated(&switched), 0);
    assert!(of_first_prefill(&switched) > 5, "the plain path allocates every buffer");
    switched.update_optimizations(Optimizations::on()).unwrap();
    assert_eq!(of_first_prefill(&switched), 0);
}

/// Short of memory the pool warms up as far as there is room, and everything works all the same.
#[test]
fn a_warm_up_that_does_not_fit_is_no_error() {
    let mut settings = Optimizations::on();
    settings.memory_pool.config.warmup_buffer_sizes_mb = vec![256, 256, 256];
    let small = CpuDevice::new(&CpuOptions { threads: Some(2), memory_budget: Some(600 << 20) });
    let engine = engine(&(small as Arc<dyn Device>), "default", settings);
    let pool = engine.optimization_stats().unwrap().memory_pool;
    assert!((1..3).contains(&pool.total_heaps), "{pool:?}");
    assert_eq!(together(&engine, 1, 5)[0].len(), 5);
}

/// Ids, positions and tables of the next step go up while a step runs; without prefetching, behind it.
#[test]
fn the_inputs_of_the_next_step_are_prefetched() {
    // Steps so long that one always runs while the next is planned.
    let device = slow_compute(Duration::from_millis(3));
    let engine = engine(&device, "default", Optimizations::on());
    let tokens = together(&engine, 3, 40);
    let (start, end) = around(&engine, 20, 60);
    let steps = end.steps.steps - start.steps.steps;
    let (before, after) = (start.blit_queue, end.blit_queue);
    let prefetched = after.prefetches - before.prefetches;
    assert!(prefetched * 10 >= steps * 9, "{prefetched} of {steps}");
    assert!((after.prefetch_hits - before.prefetch_hits).abs_diff(prefetched) <= 1);
    assert_eq!(after.prefetch_misses, 0);

    // Seven chunks of a prompt, of which the first has nothing in front of it: what was cut off above has ended.
    together(&engine, 1, 1);
    let prefetches = || engine.optimization_stats().unwrap().blit_queue.prefetches;
    let before = prefetches();
    let mut long = request(0, engine.info().vocab, 1);
    long.prompt = (0..300).map(|at| at * 31 % engine.info().vocab as u32).collect();
    let mut stream = engine.submit(long).unwrap();
    while let Some(reply) = stream.blocking_next() {
        assert!(!matches!(reply, Reply::Failed(_)), "{reply:?}");
    }
    let chunks = prefetches() - before;
    assert!((4..=6).contains(&chunks), "{chunks} of 6");

    let mut without = Optimizations::on();
    without.blit_queue.config.prefetch_enabled = false;
    engine.update_optimizations(without).unwrap();
    assert_eq!(together(&engine, 3, 40), tokens);
    let (start, end) = around(&engine, 20, 60);
    assert_eq!(
        (end.blit_queue.prefetches, end.blit_queue.prefetch_misses),
        (0, 0),
        "another queue, which counts anew"
    );
    assert!(end.blit_queue.total_uploads > start.blit_queue.total_uploads);
}
