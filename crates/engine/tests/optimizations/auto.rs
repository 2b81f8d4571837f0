//! The master switch at `auto`: a self-check decides, gives way to requests, and is made once.
//!
//! How fast the two paths are is the machine's business, so these devices are slowed: each compute submission starts
//! late, of which the plain path makes three a step; or each transfer beside compute, of which it makes none.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_engine::{Engine, EngineOptions, Feature, Master, Optimizations, Verdict};
use bessemer_hal::Device;
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};

use crate::support::{Odd, cpu, engine, slow_compute, together};

/// Each transfer beside compute takes up to this much longer. On the CPU device there are such transfers when nothing is
/// prefetched.
fn slow_transfers(delay: Duration) -> (Arc<dyn Device>, Optimizations) {
    let device = FaultDevice::new(cpu());
    device.arm(FaultPlan::new(1).with(Fault::TransferDelay, 1.0).with_delay(delay));
    let mut settings = quiet();
    settings.blit_queue.config.prefetch_enabled = false;
    (device, settings)
}

fn quiet() -> Optimizations {
    let mut settings = Optimizations { log_fallbacks: false, ..Optimizations::default() };
    settings.blit_queue.config.log_slow_operations = false;
    settings
}

fn load(device: &Arc<dyn Device>, folder: &Path, optimizations: Optimizations) -> Engine {
    let options =
        EngineOptions { optimizations, cache_folder: Some(folder.to_owned()), ..EngineOptions::default() };
    Engine::load_on(device.clone(), options).unwrap()
}

fn verdict(engine: &Engine) -> Option<Verdict> {
    engine.optimization_stats().unwrap().verdict
}

fn wait_for_verdict(engine: &Engine) -> Verdict {
    let start = Instant::now();
    loop {
        if let Some(verdict) = verdict(engine) {
            return verdict;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "no verdict");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn active(engine: &Engine) -> Vec<Feature> {
    let features = engine.optimization_stats().unwrap().features;
    features.iter().filter(|status| status.active).map(|status| status.feature).collect()
}

fn kept(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(folder.join("self-checks")).into_iter().flatten();
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn on_where_tokens_are_the_same_and_it_is_faster_and_asked_once() {
    let (device, folder) = (slow_compute(Duration::from_millis(2)), tempfile::tempdir().unwrap());
    let first = load(&device, folder.path(), quiet());
    let found = wait_for_verdict(&first);
    assert!(found.is_on() && found.speedup().unwrap() > 1.2, "{found}");
    assert_eq!(active(&first), Feature::ALL);
    let plain = together(&engine(&cpu(), "default", Optimizations::off()), 3, 20);
    assert_eq!(together(&first, 3, 20), plain);
    assert_eq!(first.stats().requests, 3, "the check is no request");

    let checked = |engine: &Engine| engine.optimization_stats().unwrap().steps.steps > 0;
    let again = load(&device, folder.path(), quiet());
    assert_eq!(verdict(&again), Some(found), "known when loading returns");
    assert!(!checked(&again) && active(&again) == Feature::ALL);
    // What has changed is checked anew, at the start or later.
    let mut other = quiet();
    other.command_buffer_ring.config.ring_size = 4;
    let third = load(&device, folder.path(), other);
    assert!(wait_for_verdict(&third).is_on() && checked(&third));
    assert_eq!(kept(folder.path()).len(), 2);
    third.update_optimizations(quiet()).unwrap();
    assert!(verdict(&third).is_some(), "known from the file");

    for damage in ["", "{", "{\"verdict\": 3}"] {
        kept(folder.path()).iter().for_each(|file| std::fs::write(file, damage).unwrap());
        let repaired = load(&device, folder.path(), quiet());
        assert!(wait_for_verdict(&repaired).is_on() && checked(&repaired), "{damage:?}");
        let known = load(&device, folder.path(), quiet());
        assert!(verdict(&known).is_some() && !checked(&known), "{damage:?}: written anew");
    }
}

#[test]
fn off_where_it_is_slower() {
    // So slow that it shows, however busy this machine is.
    let mut found = [30, 120, 480].into_iter().map(|millis| {
        let (device, settings) = slow_transfers(Duration::from_millis(millis));
        let folder = tempfile::tempdir().unwrap();
        let engine = load(&device, folder.path(), settings);
        let found = wait_for_verdict(&engine);
        assert_eq!(active(&engine).is_empty(), !found.is_on(), "{found}");
        assert_eq!(kept(folder.path()).len(), 1);
        found
    });
    let found = found.find(|found| !found.is_on()).expect("slow transfers make it slower");
    assert!(found.speedup().unwrap() < 0.95, "{found}");
    assert!(found.to_string().contains("× plain is below 0.95"), "{found}");
}

#[test]
fn off_where_tokens_differ() {
    let device = Odd::with_bad_heaps(cpu());
    let folder = tempfile::tempdir().unwrap();
    let plain = together(&engine(&cpu(), "default", Optimizations::off()), 2, 20);
    let engine = load(&device, folder.path(), quiet());
    let found = wait_for_verdict(&engine);
    assert!(!found.is_on() && found.to_string().contains("differs from the plain path's"), "{found}");
    assert!(active(&engine).is_empty());
    assert_eq!(together(&engine, 2, 20), plain, "requests have the plain path");
    assert_eq!(kept(folder.path()).len(), 1);
}

/// A failure may pass: it is no verdict for the next start.
#[test]
fn off_where_a_feature_fails_and_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let fault = FaultDevice::new(cpu());
    let failing: Arc<dyn Device> = fault.clone();
    fault.arm(FaultPlan::new(3).with(Fault::FailureAfter, 0.02));
    let engine = load(&failing, folder.path(), quiet());
    let found = wait_for_verdict(&engine);
    assert!(!found.is_on() && found.to_string().contains("failed"), "{found}");
    assert!(kept(folder.path()).is_empty());
    // Asked again, it checks again.
    fault.disarm();
    for feature in Feature::ALL {
        engine.rearm(feature);
    }
    engine.update_optimizations(Optimizations { log_fallbacks: true, ..quiet() }).unwrap();
    assert!(wait_for_verdict(&engine).speedup().is_some());
    assert_eq!(kept(folder.path()).len(), 1);
}

/// Who wants to hear more of a running server does not send it back to the plain path.
#[test]
fn what_is_logged_is_no_other_setting() {
    let folder = tempfile::tempdir().unwrap();
    let engine = load(&cpu(), folder.path(), quiet());
    let found = wait_for_verdict(&engine);
    let mut loud = Optimizations {
        log_fallbacks: true,
        fallback_log_level: bessemer_engine::FallbackLogLevel::Error,
        ..quiet()
    };
    loud.blit_queue.config.verbose_logging = true;
    loud.memory_pool.config.log_pool_exhaustion = false;
    loud.command_buffer_ring.config.log_ring_exhaustion = false;
    engine.update_optimizations(loud.clone()).unwrap();
    assert_eq!(engine.optimizations(), Some(loud.clone()));
    // The last bit of the speed may get lost on the way through the file.
    let same = verdict(&engine).expect("it is known at once");
    assert!((same.speedup().unwrap() - found.speedup().unwrap()).abs() < 1e-9, "{same:?} {found:?}");
    assert_eq!(kept(folder.path()).len(), 1);
    loud.command_buffer_ring.config.ring_size = 2;
    engine.update_optimizations(loud).unwrap();
    wait_for_verdict(&engine);
    assert_eq!(kept(folder.path()).len(), 2, "that is another one, with a check of its own");
}

#[test]
fn a_request_goes_first() {
    // So slow that the check is far from its end when loading returns.
    let (device, folder) = (slow_compute(Duration::from_millis(6)), tempfile::tempdir().unwrap());
    let expected = together(&engine(&cpu(), "default", Optimizations::off()), 2, 6);
    let start = Instant::now();
    let engine = load(&device, folder.path(), quiet());
    assert_eq!(verdict(&engine), None, "after {:?}", start.elapsed());
    for _ in 0..3 {
        assert_eq!(together(&engine, 2, 6), expected);
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = wait_for_verdict(&engine);
    assert!(found.is_on(), "{found}");
    assert_eq!(together(&engine, 2, 6), expected);
    let stats = engine.stats();
    assert_eq!((stats.requests, stats.finished, stats.running, stats.kv_blocks_used), (8, 8, 0, 0));
}

#[test]
fn who_says_on_or_off_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    for settings in [Optimizations::on(), Optimizations::off()] {
        let engine = load(&cpu(), folder.path(), settings.clone());
        let stats = engine.optimization_stats().unwrap();
        assert_eq!((stats.enabled, stats.verdict, stats.steps.steps), (settings.enabled, None, 0));
        assert_eq!(active(&engine).len(), if settings.enabled == Master::On { 3 } else { 0 });
        engine.update_optimizations(quiet()).unwrap();
        let found = wait_for_verdict(&engine);
        assert!(found.speedup().is_some(), "{found}");
        assert_eq!(active(&engine).len(), if found.is_on() { 3 } else { 0 }, "{found}");
        engine.update_optimizations(settings.clone()).unwrap();
        assert_eq!(verdict(&engine), None);
    }
}

/// The engine goes away while it checks.
#[test]
fn dropping_the_engine_ends_the_check() {
    let (device, folder) = (slow_compute(Duration::from_millis(20)), tempfile::tempdir().unwrap());
    let engine = load(&device, folder.path(), quiet());
    let start = Instant::now();
    drop(engine);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(kept(folder.path()).is_empty());
}
