//! How often a steady step of decoding allocates memory of the host. The whole program counts: the engine's thread, the
//! device's threads, and the owner of the request, so that this binary has one test only.

use std::alloc::System;

use bessemer_engine::{Engine, EngineOptions, Optimizations, Reply, Request, Sampling};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Steps that are counted together.
const WINDOW: usize = 256;

/// What a step may allocate: some dozens of small lists, none of which depends on how long the sequence is.
const MOST: f64 = 60.0;

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Allocations of a request of so many tokens, from before it is sent to its end. Not from token to token: the engine
/// does not wait for whoever reads them.
fn by_request(engine: &Engine, sampling: &Sampling, tokens: usize) -> usize {
    let before = allocations();
    let request = Request {
        prompt: (0..8).map(|id| id * 37 % engine.info().vocab as u32).collect(),
        sampling: sampling.clone(),
        max_tokens: Some(tokens),
        ignore_end: true,
        ..Request::default()
    };
    let mut stream = engine.submit(request).unwrap();
    for _ in 0..tokens {
        let reply = stream.blocking_next();
        assert!(matches!(reply, Some(Reply::Token(_))), "{reply:?}");
    }
    assert!(matches!(stream.blocking_next(), Some(Reply::Finished { .. })));
    allocations() - before
}

/// Allocations a step, in the window that begins with this token of a request.
fn by_step(engine: &Engine, sampling: &Sampling, begin: usize) -> f64 {
    let [short, long] = [begin, begin + WINDOW].map(|tokens| by_request(engine, sampling, tokens) as f64);
    (long - short) / WINDOW as f64
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
        // Once before, so that the shapes are known.
        by_request(&engine, &sampling, 1000 + WINDOW);
        let counted @ [early, late] = [100, 1000].map(|begin| by_step(&engine, &sampling, begin));
        println!("{name}: {counted:.1?} allocations a step, at steps 100 and 1000");
        assert!(early <= MOST && late <= MOST, "{name}: {counted:?}");
        // A wait that finds the other late costs a few, and how often that is depends on the machine. What grew with the
        // sequence, which has 56 blocks more by then, would cost more than that.
        assert!(late <= early + 10.0, "{name}: {counted:?}");
    }
}
