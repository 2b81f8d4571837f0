//! What a steady decode step costs, by the counters.

use std::sync::Arc;

use bessemer_engine::{Engine, OptimizationStats, Optimizations, Reply};
use bessemer_hal::Device;

use crate::support::{cpu, engine, on_vulkan, request};

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
