//! The whole selftest on a Vulkan device, watched by the validation layer: no failures, and no word from the layer.
//!
//! It takes the software device where there is one (Debian: `mesa-vulkan-drivers`), so that it runs everywhere.
//! `BESSEMER_TEST_ADAPTER=N` takes another, `BESSEMER_TEST_NO_VALIDATION=1` does without the layer
//! (`vulkan-validationlayers`).

use std::cell::RefCell;
use std::sync::Arc;

use bessemer_hal::Device;
use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_selftest::{Ending, Group, Selftest};

/// The adapter to test on, or `None`, said so, where there is no driver.
fn adapter() -> Option<usize> {
    if let Ok(index) = std::env::var("BESSEMER_TEST_ADAPTER") {
        return Some(index.parse().expect("BESSEMER_TEST_ADAPTER is the number of an adapter"));
    }
    let found = adapters().unwrap_or_default();
    let usable = || found.iter().filter(|adapter| adapter.unusable.is_none());
    let chosen = usable().find(|adapter| adapter.kind == AdapterKind::Software).or_else(|| usable().next());
    if chosen.is_none() {
        let ci = cfg!(target_os = "linux") && std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "no Vulkan driver: {found:?}");
        eprintln!("skipped: no Vulkan driver");
    }
    chosen.map(|adapter| adapter.index)
}

/// Runs the checks whose names contain `part`.
fn run_with(part: &str, prefer_staging: bool) {
    let Some(adapter) = adapter() else { return };
    let options = VulkanOptions {
        adapter: Some(adapter),
        validation: std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none(),
        prefer_staging,
        ..VulkanOptions::default()
    };
    let opened = RefCell::new(Vec::<Arc<VulkanDevice>>::new());
    let open = || {
        let device = VulkanDevice::new(&options)?;
        opened.borrow_mut().push(device.clone());
        Ok::<Arc<dyn Device>, _>(device)
    };
    let mut seen = 0;
    let mut said = Vec::new();
    let selftest = Selftest { filter: Some(part.into()), ..Selftest::default() };
    let report = selftest.run(&open, &Group::all(), &mut |report| {
        let Some(entry) = report.checks.last().filter(|_| report.running.is_none()) else { return };
        println!("{}: {entry}", entry.name);
        let all: Vec<_> = opened.borrow().iter().flat_map(|device| device.validation_messages()).collect();
        said.extend(all[seen..].iter().map(|message| format!("{}: {message}", entry.name)));
        seen = all.len();
    });
    let report = report.expect("the device opens");
    assert!(report.passed(), "{}", report.summary());
    assert!(report.count(Ending::Passed) > 0, "nothing ran: {}", report.summary());
    assert!(said.is_empty(), "the validation layer says:\n{}", said.join("\n"));
}

fn run(part: &str) {
    run_with(part, false);
}

/// A test for each of these groups, so that they can run side by side, and one for the rest.
macro_rules! groups {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                run(concat!($name, "/"));
            }
        )*

        #[test]
        fn rest() {
            let groups = Group::all();
            let named = [$($name),*];
            for group in groups.iter().filter(|group| !named.contains(&group.name.as_str())) {
                run(&format!("{}/", group.name));
            }
        }
    };
}

groups! {
    device_memory: "device/memory",
    device_copies: "device/copies",
    device_order: "device/order",
    device_queues: "device/queues",
    device_misuse: "device/misuse",
    attention: "kernels/attention",
    linear: "kernels/linear",
    sampling: "kernels/sampling",
    storyteller: "models/storyteller",
    storyteller_draft: "models/storyteller_draft",
}

/// As on a GPU with memory of its own, where each read and write of the host is a copy by the GPU.
#[test]
fn device_with_staging() {
    run_with("device/", true);
}
