//! The CPU device against itself: the checks check what they should, and nothing that a sound device fails.

use std::sync::Arc;

use bessemer_hal::Device;
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_selftest::{Group, Report, Selftest};

fn run(part: &str, repeat: u32) -> Report {
    let open = || {
        Ok::<Arc<dyn Device>, _>(CpuDevice::new(&CpuOptions {
            threads: Some(2),
            memory_budget: Some(1 << 30),
        }))
    };
    let selftest = Selftest { filter: Some(part.into()), repeat, seed: 11 };
    let report = selftest.run(&open, &Group::all(), &mut |_| ()).unwrap();
    assert!(report.passed(), "{}", report.summary());
    assert!(!report.checks.is_empty());
    report
}

#[test]
fn device() {
    run("device/", 2);
}

/// Trivially equal: what counts is that the checks of kernels ask for nothing that cannot be.
#[test]
fn kernels() {
    run("kernels/", 1);
}

#[test]
fn models() {
    run("models/", 1);
}
