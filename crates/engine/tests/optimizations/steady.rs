//! What a steady decode step costs, by the counters.

use std::sync::Arc;
use std::time::Duration;

use bessemer_engine::{Engine, OptimizationStats, Optimizations};
use bessemer_hal::Device;
use bessemer_hal::cpu::{CpuDevice, CpuOptions};

use crate::support::{Odd, collect, cpu, engine, on_vulkan, request, together};

/// Runs one request of so many tokens to its end; the counters of the engine, which rests then.
fn run(engine: &Engine, tokens: usize) -> OptimizationStats {
    let mut wanted = request(0, engine.info().vocab, tokens);
    wanted.prompt.truncate(3);
    assert_eq!(collect(engine.submit(wanted).unwrap()).unwrap().len(), tokens);
    engine.optimization_stats().unwrap()
}

/// What `steps` more tokens add to each counter: what a request of `before + steps` tokens adds, less what one of
/// `before` does. While a request runs, the engine counts on behind the back of whoever reads its tokens.
struct Added {
    start: OptimizationStats,
    short: OptimizationStats,
    long: OptimizationStats,
}

impl Added {
    fn by(engine: &Engine, before: usize, steps: usize) -> Self {
        // Once before, so that the shapes are known.
        let start = run(engine, before + steps);
        let (short, long) = (run(engine, before), run(engine, before + steps));
        Self { start, short, long }
    }

    fn to(&self, count: impl Fn(&OptimizationStats) -> u64) -> i64 {
        let [start, short, long] = [&self.start, &self.short, &self.long].map(|stats| count(stats) as i64);
        (long - short) - (short - start)
    }
}

fn a_steady_step_costs_next_to_nothing(device: &Arc<dyn Device>, before: usize, steps: usize) {
    let engine = engine(device, "default", Optimizations::on());
    let added = Added::by(&engine, before, steps);
    let run = steps as i64;
    assert_eq!(added.to(|stats| stats.steps.steps), run);
    assert_eq!(added.to(|stats| stats.steps.resubmitted), run, "every step is a recording of before");
    assert_eq!(added.long.steps.encode_ns, added.start.steps.encode_ns);
    assert_eq!(added.long.steps.allocation_ns, added.start.steps.allocation_ns);
    let submitted = added.to(|stats| stats.command_buffer_ring.total_submitted);
    assert!((run..=2 * run).contains(&submitted), "{submitted} submissions for {run} steps");
    // The last step of a request has none behind it, and may be over before it is waited for.
    let waits = added.to(|stats| stats.steps.host_waits);
    assert!(waits.abs() <= 1, "{waits}: the device has its next step before it ends one");
    assert_eq!(added.to(|stats| stats.memory_pool.device_allocations), 0);
    assert_eq!(added.to(|stats| stats.memory_pool.placed_buffers), 0);
    assert_eq!(added.long.memory_pool.fallback_allocations, 0);
    assert!(added.to(|stats| stats.blit_queue.bytes_up) > 0);
    assert!(added.to(|stats| stats.blit_queue.bytes_down) > 0);
    assert!(added.long.steps.busy_ns > added.short.steps.busy_ns);
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
    let (steps, added) = (20, Added::by(&engine, 10, 20));
    assert_eq!(added.to(|stats| stats.steps.steps), steps);
    assert_eq!(added.long.steps.resubmitted, 0);
    assert!(added.long.steps.encode_ns > added.short.steps.encode_ns);
    assert!(added.to(|stats| stats.steps.allocation_ns) > 0);
    assert!(added.to(|stats| stats.memory_pool.device_allocations) >= 5 * steps);
    let waits = added.to(|stats| stats.command_buffer_ring.wait_events);
    assert!(waits >= steps, "{waits} waits in {steps} steps");
    assert!(added.to(|stats| stats.blit_queue.plain_transfers) >= 2 * steps);
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

/// Ids, positions and tables of the next step go up while a step runs.
#[test]
fn the_inputs_of_the_next_step_are_prefetched() {
    // Steps so long that one always runs while the next is planned, however busy this machine is.
    let mut found = Vec::new();
    let all = [3, 10, 30, 100].into_iter().any(|millis| {
        let device = Odd::slow(cpu(), Duration::from_millis(millis));
        let engine = engine(&device, "default", Optimizations::on());
        let prefetched = (prefetched_of_60(&engine), prefetched_chunks(&engine));
        let blit = engine.optimization_stats().unwrap().blit_queue;
        assert_eq!((blit.prefetch_hits, blit.prefetch_misses), (blit.prefetches, 0));
        found.push(prefetched);
        prefetched == (60, 6)
    });
    assert!(all, "{found:?} of 60 steps and 6 chunks");
}

/// Without prefetching they go up behind it.
#[test]
fn inputs_that_are_not_prefetched_are_uploaded() {
    let device = Odd::slow(cpu(), Duration::from_millis(3));
    let engine = engine(&device, "default", Optimizations::on());
    let tokens = together(&engine, 3, 40);
    assert!(engine.optimization_stats().unwrap().blit_queue.prefetches > 0);
    let mut without = Optimizations::on();
    without.blit_queue.config.prefetch_enabled = false;
    engine.update_optimizations(without).unwrap();
    assert_eq!(together(&engine, 3, 40), tokens);
    let blit = engine.optimization_stats().unwrap().blit_queue;
    assert_eq!((blit.prefetches, blit.prefetch_misses), (0, 0), "another queue, which counts anew");
    assert!(blit.total_uploads >= 40);
}

/// Of 60 steps of decoding, those whose inputs were prefetched.
fn prefetched_of_60(engine: &Engine) -> i64 {
    Added::by(engine, 20, 60).to(|stats| stats.blit_queue.prefetches)
}

/// Of the seven chunks of a prompt, those that were prefetched: not the first, which has nothing in front of it.
fn prefetched_chunks(engine: &Engine) -> u64 {
    let before = run(engine, 1).blit_queue.prefetches;
    let mut long = request(0, engine.info().vocab, 1);
    long.prompt = (0..300).map(|at| at * 31 % engine.info().vocab as u32).collect();
    collect(engine.submit(long).unwrap()).unwrap();
    engine.optimization_stats().unwrap().blit_queue.prefetches - before
}
