//! Short soaks: a device that fails over and over, on the CPU and through Vulkan.
//!
//! The long one of the same kind is `bessemer soak --faults`; see `docs/soak.md`.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bessemer_engine::EngineOptions;
use bessemer_hal::Device;
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_selftest::soak::Length;
use bessemer_selftest::{Soak, SoakReport};

/// A model of a few kilobytes.
fn tiny() -> EngineOptions {
    let model =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/quantised/qwen2_4bit_g64/model");
    EngineOptions { model: model.to_str().unwrap().into(), ..EngineOptions::default() }
}

fn cpu() -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { threads: Some(2), ..CpuOptions::default() })
}

/// One at a time: the memory of the process is looked at.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn soak(soak: &Soak, device: Arc<dyn Device>, options: EngineOptions) -> SoakReport {
    let _alone = alone();
    let report = soak.run(device, options, &AtomicBool::new(false), &mut |_| ()).unwrap();
    println!("{report}");
    report
}

fn survives(device: Arc<dyn Device>, wanted: &Soak, options: EngineOptions, faults: u64) {
    let report = soak(wanted, device, options);
    assert!(report.passed());
    let Length::Requests(requests) = wanted.length else { panic!("it ends by itself") };
    assert_eq!(report.requests.ended, requests);
    let injected = report.faults.unwrap();
    assert!(injected.all() >= faults, "{} faults", injected.all());
    assert!(report.requests.right > requests / 6, "it serves on meanwhile");
    if wanted.staging {
        let transfers = injected.injected.get("transfer-corruption").copied().unwrap_or_default();
        assert!(transfers > 0, "{injected:?}");
    }
}

#[test]
fn faults_on_the_cpu() {
    let wanted = Soak { length: Length::Requests(600), fault_rate: Some(0.01), seed: 11, ..Soak::default() };
    survives(cpu(), &wanted, tiny(), 100);
}

/// With settings that change, transfers that are real copies, and a KV cache that is too small for all.
#[test]
fn faults_on_the_cpu_while_everything_else_changes_too() {
    let wanted = Soak {
        length: Length::Requests(800),
        fault_rate: Some(0.003),
        staging: true,
        switches: true,
        seed: 12,
        ..Soak::default()
    };
    let options = EngineOptions { context: Some(96), kv_memory: Some(1 << 16), ..tiny() };
    survives(cpu(), &wanted, options, 60);
}

#[test]
fn faults_on_vulkan() {
    let all = adapters().unwrap_or_default();
    let Some(software) = all.into_iter().find(|adapter| adapter.kind == AdapterKind::Software) else {
        let must = cfg!(target_os = "linux") && std::env::var("CI").as_deref() == Ok("true");
        assert!(!must, "no Vulkan driver");
        eprintln!("skipped: no Vulkan driver made of software");
        return;
    };
    let validation = std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none();
    let options = VulkanOptions { adapter: Some(software.index), validation, ..VulkanOptions::default() };
    let device = VulkanDevice::new(&options).unwrap();
    let wanted = Soak {
        length: Length::Requests(60),
        distinct: 8,
        max_prompt: 24,
        max_tokens: 8,
        fault_rate: Some(0.03),
        staging: true,
        seed: 13,
        ..Soak::default()
    };
    survives(device.clone(), &wanted, tiny(), 60);
    assert_eq!(device.validation_messages(), Vec::<String>::new());
}

/// Unverified transfers that arrive damaged, from the fifth request on.
#[test]
fn wrong_answers_are_found() {
    let fault = FaultDevice::with_own_memory(cpu());
    let wanted = Soak { length: Length::Requests(2000), ..Soak::default() };
    let plan = FaultPlan::new(3).with(Fault::TransferCorruption, 0.02);
    let report = spoilt(&wanted, &fault, plan);
    assert!(!report.passed() && report.requests.violations > 0);
}

/// A device that stops, from the fifth request on.
#[test]
fn a_run_that_hangs_is_told() {
    let fault = FaultDevice::new(cpu());
    let length = Length::Time(Duration::from_secs(60));
    let wanted = Soak { length, patience: Duration::from_secs(1), ..Soak::default() };
    let plan = FaultPlan::new(4).with(Fault::SubmissionTimeout, 1.0).with_timeout(Duration::from_secs(30));
    let report = spoilt(&wanted, &fault, plan);
    assert!(report.failures.iter().any(|failure| failure.contains("neither a token nor an end for 1 s")));
    assert!(report.remains.is_none() && report.seconds < 25.0);
}

/// A run on a device that starts to fail by `plan` behind the back of the soak.
fn spoilt(wanted: &Soak, fault: &Arc<FaultDevice>, plan: FaultPlan) -> SoakReport {
    let mut plan = Some(plan);
    let _alone = alone();
    let report = wanted.run(fault.clone(), tiny(), &AtomicBool::new(false), &mut |progress| {
        if let Some(plan) = plan.take_if(|_| progress.sample.requests >= 5) {
            fault.arm(plan);
        }
    });
    let report = report.unwrap();
    println!("{report}");
    report
}

/// The rules of a soak are checked: a run with nothing wrong holds them, and one that is interrupted tells what it has.
#[test]
fn nothing_fails_where_nothing_is_made_to_fail() {
    // So long that something happens, however busy this machine is.
    let happened = [2, 10, 40].into_iter().any(|seconds| {
        let length = Length::Time(Duration::from_secs(seconds));
        let report = soak(&Soak { length, switches: true, ..Soak::default() }, cpu(), tiny());
        assert!(report.passed() && report.requests.failed.is_empty());
        let measured = !report.memory.is_empty() && report.throughput.is_some();
        measured && report.switched > 10 && report.requests.right > 0
    });
    assert!(happened);
    let stop = AtomicBool::new(true);
    let wanted = Soak { length: Length::Time(Duration::from_secs(3600)), ..Soak::default() };
    let report = wanted.run(cpu(), tiny(), &stop, &mut |_| ()).unwrap();
    assert!(report.interrupted && report.seconds < 60.0);
}
