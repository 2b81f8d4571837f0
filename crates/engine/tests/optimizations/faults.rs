//! Failures of the device: features fall back, requests end once, and nothing leaks.

use std::sync::Arc;
use std::time::Duration;

use bessemer_engine::{Engine, EngineError, Feature, Optimizations};
use bessemer_hal::Device;
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};

use crate::support::{collect, cpu, engine, on_vulkan, request, together};

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
fn a_lost_device_ends_every_request_with_its_error() {
    let (fault, engine) = faulty(cpu(), Optimizations::on());
    let vocab = engine.info().vocab;
    let streams: Vec<_> = (0..4).map(|number| engine.submit(request(number, vocab, 500)).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(20));
    fault.lose("as ordered by the test");
    for stream in streams {
        let error = collect(stream).unwrap_err().to_string();
        assert!(error.contains("lost"), "{error}");
    }
    assert!(collect(engine.submit(request(0, vocab, 5)).unwrap()).is_err());
    assert_eq!(engine.stats().kv_blocks_used, 0);
}

/// Random faults over many requests; features that fell back are armed again, so that all ways of failing are met.
fn survives(device: Arc<dyn Device>, requests: usize, tokens: usize, rate: f64) {
    // A corrupted transfer gives no error: only checksums tell it from a good one.
    let mut settings = Optimizations { log_fallbacks: false, ..Optimizations::on() };
    settings.blit_queue.config.verify_checksums = true;
    settings.blit_queue.config.log_slow_operations = false;
    settings.memory_pool.config.log_pool_exhaustion = false;
    let (fault, engine) = faulty(device, settings);
    let vocab = engine.info().vocab;
    let expected: Vec<_> = (0..8)
        .map(|number| collect(engine.submit(request(number, vocab, tokens)).unwrap()).unwrap())
        .collect();
    let plan = Fault::ALL
        .into_iter()
        .filter(|fault| !matches!(fault, Fault::DeviceLoss | Fault::TransferCorruption))
        .fold(FaultPlan::new(11), |plan, fault| plan.with(fault, rate))
        .with_delay(Duration::from_millis(2))
        .with_timeout(Duration::from_millis(5));
    fault.arm(plan);
    let (mut fine, mut failed) = (0_usize, 0_usize);
    for round in 0..requests / 8 {
        let streams: Vec<_> =
            (0..8).map(|number| engine.submit(request(number, vocab, tokens)).unwrap()).collect();
        for (number, stream) in streams.into_iter().enumerate() {
            match collect(stream) {
                Ok(output) => {
                    assert_eq!(output, expected[number], "round {round}, request {number}");
                    fine += 1;
                }
                Err(error) => {
                    assert!(matches!(error, EngineError::Device(_)), "{error}");
                    failed += 1;
                }
            }
        }
        for feature in Feature::ALL {
            engine.rearm(feature);
        }
    }
    fault.disarm();
    let injected = fault.statistics().all_faults();
    println!("{fine} fine, {failed} failed, {}", fault.statistics());
    assert!(injected as usize > requests / 20, "{injected} faults");
    assert!(fine > failed, "{fine} fine, {failed} failed");
    // It serves on, and nothing is held.
    assert_eq!(together(&engine, 8, tokens), expected);
    let stats = engine.stats();
    assert_eq!((stats.running, stats.kv_blocks_used), (0, 0));
    assert_eq!(stats.requests, stats.finished + stats.cancelled + stats.failed);
    engine.shutdown();
    let pool = engine.optimization_stats().unwrap().memory_pool;
    assert_eq!(pool.total_acquired - pool.total_released - pool.live, 0, "{pool:?}");
    assert_eq!(pool.live, 0, "{pool:?}");
}

#[test]
fn random_faults_on_the_cpu() {
    survives(cpu(), 400, 16, 0.004);
}

#[test]
fn random_faults_on_vulkan() {
    on_vulkan(|device| survives(device, 24, 6, 0.01));
}
