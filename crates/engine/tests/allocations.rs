//! How often a steady step of decoding allocates memory of the host. The whole program counts: the engine's thread, the
//! device's threads, and the owner of the request, so that this binary has one test only.

use std::alloc::System;

use bessemer_engine::{Engine, EngineOptions, Optimizations, Reply, Request, Sampling};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Steps that are counted together. The engine is a step ahead of the reader, so that the count is off by one step's at
/// most.
const WINDOW: usize = 256;

/// What a step may allocate: some dozens of small lists, none of which depends on how long the sequence is.
const MOST: f64 = 60.0;

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Allocations a step, in the windows that begin with these tokens of one request.
fn by_step(engine: &Engine, sampling: Sampling, begins: &[usize]) -> Vec<f64> {
    let tokens = begins.iter().max().unwrap() + WINDOW + 4;
    let request = Request {
        prompt: (0..8).map(|id| id * 37 % engine.info().vocab as u32).collect(),
        sampling,
        max_tokens: Some(tokens),
        ignore_end: true,
        ..Request::default()
    };
    let mut stream = engine.submit(request).unwrap();
    let mut counts = Vec::with_capacity(tokens);
    for _ in 0..tokens {
        let reply = stream.blocking_next();
        assert!(matches!(reply, Some(Reply::Token(_))), "{reply:?}");
        counts.push(allocations());
    }
    begins.iter().map(|begin| (counts[begin + WINDOW] - counts[*begin]) as f64 / WINDOW as f64).collect()
}

#[test]
fn a_steady_step_allocates_the_same_few_times_at_any_length() {
    let options = EngineOptions {
        model: concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/models/qwen2/model").into(),
        threads: Some(2),
        max_sequences: 1,
        optimizations: Optimizations::on(),
        ..EngineOptions::default()
    };
    let engine = Engine::load(options).unwrap();
    let penalties =
        Sampling { temperature: 0.8, repetition_penalty: 1.1, seed: Some(1), ..Sampling::default() };
    for (name, sampling) in [("greedy", Sampling::greedy()), ("with penalties", penalties)] {
        let counted = by_step(&engine, sampling, &[100, 1000]);
        println!("{name}: {counted:.1?} allocations a step, at steps 100 and 1000");
        let [early, late] = counted[..] else { panic!() };
        assert!(early <= MOST && late <= MOST, "{name}: {counted:?}");
        // A wait that finds the other late costs a few, and how often that is depends on the machine. What grew with the
        // sequence, which has 56 blocks more by then, would cost more than that.
        assert!(late <= early + 10.0, "{name}: {counted:?}");
    }
}
