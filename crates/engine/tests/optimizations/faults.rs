//! Failures of the device, one at a time: features fall back, requests end once.
//!
//! Random failures by the thousand are in `crates/selftest/tests/soak.rs`.

use std::sync::Arc;
use std::time::Duration;

use bessemer_engine::{Engine, EngineError, Feature, Optimizations};
use bessemer_hal::Device;
use bessemer_hal::fault::{Fault, FaultDevice};

use crate::support::{collect, cpu, engine, request, slow, together};

fn faulty(device: Arc<dyn Device>, optimizations: Optimizations) -> (Arc<FaultDevice>, Engine) {
    let fault = FaultDevice::new(device);
    let device: Arc<dyn Device> = fault.clone();
    let engine = engine(&device, "default", optimizations);
    (fault, engine)
}

fn latched(engine: &Engine) -> Vec<Feature> {
    let stats = engine.optimization_stats().unwrap();
    stats.features.iter().filter(|feature| feature.latched.is_some()).map(|feature| feature.feature).collect()
}

#[test]
fn a_failed_command_buffer_costs_no_request() {
    for failure in [Fault::FailureBefore, Fault::FailureAfter] {
        let (fault, engine) = faulty(cpu(), Optimizations::on());
        let expected = together(&engine, 3, 30);
        fault.next(failure);
        assert_eq!(together(&engine, 3, 30), expected);
        assert_eq!(latched(&engine), [Feature::CommandBufferRing]);
        let stats = engine.stats();
        assert_eq!((stats.failed, stats.failed_steps, stats.repeated_steps), (0, 1, 1));
        assert!(engine.rearm(Feature::CommandBufferRing));
        assert_eq!(together(&engine, 3, 30), expected);
        assert!(latched(&engine).is_empty());
    }
}

#[test]
fn a_failed_write_falls_back_to_a_copy() {
    let (fault, engine) = faulty(cpu(), Optimizations::on());
    let expected = together(&engine, 2, 20);
    fault.next(Fault::WriteFailure);
    assert_eq!(together(&engine, 2, 20), expected);
    assert_eq!(latched(&engine), [Feature::BlitQueue]);
    assert_eq!(engine.stats().failed_steps, 0, "the transfer was made in the plain way");
}

#[test]
fn without_memory_for_heaps_buffers_are_allocated() {
    let inner = cpu();
    let fault = FaultDevice::new(inner);
    let device: Arc<dyn Device> = fault.clone();
    let mut cold = Optimizations::on();
    cold.memory_pool.config.warmup_buffer_sizes_mb.clear();
    let engine = engine(&device, "default", cold);
    for _ in 0..2 {
        fault.next(Fault::HeapMemory);
    }
    assert_eq!(together(&engine, 2, 10).len(), 2);
    let pool = engine.optimization_stats().unwrap().memory_pool;
    assert!(pool.fallback_allocations > 0, "{pool:?}");
    assert_eq!(engine.stats().failed, 0);
}

#[test]
fn without_fallback_the_requests_of_the_step_fail() {
    let settings = Optimizations { graceful_fallback: false, ..Optimizations::on() };
    let (fault, engine) = faulty(cpu(), settings);
    let expected = together(&engine, 1, 10);
    fault.next(Fault::FailureBefore);
    let error = collect(engine.submit(request(0, engine.info().vocab, 10)).unwrap()).unwrap_err();
    assert!(matches!(error, EngineError::Device(_)), "{error}");
    assert!(latched(&engine).is_empty());
    assert_eq!(together(&engine, 1, 10), expected);
}

#[test]
fn a_lost_device_ends_every_request_and_refuses_the_next() {
    let settings = [Optimizations::on(), Optimizations::off()];
    for optimizations in settings {
        let (fault, engine) = faulty(cpu(), optimizations.clone());
        let vocab = engine.info().vocab;
        // So slow that none of them comes to its end, and more than run at once, so that some wait.
        fault.arm(slow(Duration::from_millis(5)));
        let ask = |number| engine.submit(request(number, vocab, 500));
        let streams: Vec<_> = (0..24).map(|number| ask(number).unwrap()).collect();
        engine.health().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fault.lose("as ordered by the test");
        for stream in streams {
            let error = collect(stream).unwrap_err();
            assert!(matches!(error, EngineError::DeviceLost { .. }), "{error}");
            assert!(error.to_string().contains("as ordered by the test"), "{error}");
        }
        let lost = |error| matches!(error, EngineError::DeviceLost { .. });
        assert!(lost(ask(0).unwrap_err()) && lost(engine.health().unwrap_err()));
        assert!(lost(engine.update_optimizations(Optimizations::off()).unwrap_err()));
        assert!(lost(engine.logits(&[1, 2]).unwrap_err()));
        let stats = engine.stats();
        assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0));
        assert_eq!((stats.failed, stats.requests), (24, 24));
        engine.shutdown();
        // Loaded again, on the device as it is after a restart, it serves as before.
        let (_fault, engine) = faulty(fault.inner().clone(), optimizations);
        assert_eq!(together(&engine, 2, 5).len(), 2);
    }
}
