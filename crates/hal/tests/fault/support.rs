//! Devices to wrap, and shorthands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_hal::fault::{Fault, FaultDevice};
use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_hal::*;

use super::kernels::{LONG, cpu, record};

/// Long enough for a copy, short enough to be waited out.
pub const SHORT: Duration = Duration::from_millis(20);

/// Runs a test around each device there is.
pub fn each(test: impl Fn(Arc<dyn Device>)) {
    test(cpu(2));
    let Some(device) = vulkan() else { return };
    test(device.clone());
    let mut messages = device.validation_messages();
    // What a layer says that is older than the GPU's driver.
    let of_age = ["unknown VkStructureType", "is not supported by this layer"];
    messages.retain(|m| !of_age.iter().any(|part| m.contains(part)));
    assert_eq!(messages, Vec::<String>::new());
}

/// The Vulkan device to wrap, or `None`, said so, where there is no driver.
fn vulkan() -> Option<Arc<VulkanDevice>> {
    let found = adapters().unwrap_or_default();
    let usable = || found.iter().filter(|a| a.unusable.is_none());
    let chosen = usable().find(|a| a.kind == AdapterKind::Software).or_else(|| usable().next());
    let Some(chosen) = chosen else {
        assert!(
            !cfg!(target_os = "linux") || std::env::var("CI").as_deref() != Ok("true"),
            "no Vulkan driver: {found:?}"
        );
        eprintln!("on the CPU alone: no Vulkan driver");
        return None;
    };
    let validation = std::env::var_os("BESSEMER_TEST_NO_VALIDATION").is_none();
    let options = VulkanOptions { adapter: Some(chosen.index), validation, ..VulkanOptions::default() };
    Some(VulkanDevice::new(&options).unwrap())
}

pub fn copying(device: &dyn Device, label: &str, from: &Buffer, to: &Buffer) -> CommandBuffer {
    record(device, label, |e| e.copy(&from.whole(), &to.whole()).unwrap())
}

/// Submits `commands` to wait for nothing and to signal `(event, value)`.
pub fn raising(
    device: &dyn Device,
    queue: QueueKind,
    commands: &CommandBuffer,
    event: &Event,
    value: u64,
) -> Submission {
    let signal = [(event.clone(), value)];
    device.submit(queue, Submit { signal: &signal, ..Submit::new(commands) }).unwrap()
}

/// Submits `commands` to start when `event` stands at `value`.
pub fn awaiting(
    device: &dyn Device,
    queue: QueueKind,
    commands: &CommandBuffer,
    event: &Event,
    value: u64,
) -> Submission {
    let wait = [(event.clone(), value)];
    device.submit(queue, Submit { wait: &wait, ..Submit::new(commands) }).unwrap()
}

/// Waits until the device inside holds `bytes`: it lets go what a submission held a moment after its end.
pub fn settles_at(device: &dyn Device, bytes: u64) {
    let begin = Instant::now();
    while device.allocated() != bytes {
        assert!(begin.elapsed() < LONG, "{} bytes are held, not {bytes}", device.allocated());
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn injected(device: &FaultDevice, fault: Fault) -> u64 {
    device.statistics().faults(fault)
}

/// Where two lists differ, first and last.
pub fn difference(a: &[u8], b: &[u8]) -> Option<(usize, usize)> {
    let differs = |&i: &usize| a[i] != b[i];
    Some(((0..a.len()).find(differs)?, (0..a.len()).rfind(differs)?))
}

pub fn bytes(device: &dyn Device, buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.size() as usize];
    device.read(&buffer.whole(), &mut bytes).unwrap();
    bytes
}
