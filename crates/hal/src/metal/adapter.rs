//! The GPUs of this system, and what they can do.

use std::fmt;

use objc2::rc::autoreleasepool;
use objc2_foundation::NSProcessInfo;
use objc2_metal::{MTLCopyAllDevices, MTLDevice, MTLGPUFamily};

use super::cores;
use super::family::Facts;
use super::native::RawDevice;
use crate::{DeviceError, Result};

/// A GPU that Metal reports.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// What it is asked for by: its place in the system's order.
    pub index: usize,
    /// The name that its maker gave it.
    pub name: String,
    /// GPU and host share one memory.
    pub unified_memory: bool,
    /// Bytes that the system recommends to use at most.
    pub memory: u64,
    /// Why kernels cannot run on it; `None` when they can.
    pub unusable: Option<String>,
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = if self.unified_memory { "unified memory" } else { "memory of its own" };
        write!(f, "{}: {} ({memory}, {} MiB", self.index, self.name, self.memory >> 20)?;
        match &self.unusable {
            Some(reason) => write!(f, "; unusable: {reason})"),
            None => write!(f, ")"),
        }
    }
}

/// Every GPU that Metal reports on this system, usable or not.
pub fn adapters() -> Vec<Adapter> {
    all().into_iter().map(|(_, _, adapter)| adapter).collect()
}

/// The adapter asked for, or the best usable one: with unified memory, and with the largest.
pub(crate) fn choose(index: Option<usize>) -> Result<(RawDevice, Facts)> {
    let mut found = all();
    let list = || {
        let names: Vec<_> = found.iter().map(|(_, _, adapter)| adapter.to_string()).collect();
        if names.is_empty() {
            // A session without a window server, such as one over SSH, has GPUs; a virtual machine may have none.
            "Metal reports no GPU".to_owned()
        } else {
            format!("found: {}", names.join("; "))
        }
    };
    let place = match index {
        Some(index) => {
            let Some((_, _, adapter)) = found.get(index) else {
                return Err(DeviceError::Unavailable(format!("there is no Metal GPU {index}; {}", list())));
            };
            if let Some(reason) = &adapter.unusable {
                let name = &adapter.name;
                return Err(DeviceError::Unavailable(format!(
                    "Metal GPU {index} ({name}) cannot be used: {reason}"
                )));
            }
            index
        }
        None => {
            let usable = found.iter().map(|(_, _, a)| a).filter(|a| a.unusable.is_none());
            let best = usable.max_by_key(|a| (a.unified_memory, a.memory, std::cmp::Reverse(a.index)));
            let Some(best) = best else {
                return Err(DeviceError::Unavailable(format!("no usable Metal GPU; {}", list())));
            };
            best.index
        }
    };
    let (raw, facts, _) = found.swap_remove(place);
    Ok((raw, facts))
}

fn all() -> Vec<(RawDevice, Facts, Adapter)> {
    autoreleasepool(|_| {
        MTLCopyAllDevices()
            .iter()
            .enumerate()
            .map(|(index, raw)| {
                let facts = facts(&raw);
                let adapter = Adapter {
                    index,
                    name: facts.name.clone(),
                    unified_memory: facts.unified,
                    memory: facts.working_set,
                    unusable: facts.unusable(),
                };
                (raw, facts, adapter)
            })
            .collect()
    })
}

fn facts(device: &RawDevice) -> Facts {
    let version = NSProcessInfo::processInfo().operatingSystemVersion();
    let apple = [
        (10, MTLGPUFamily::Apple10),
        (9, MTLGPUFamily::Apple9),
        (8, MTLGPUFamily::Apple8),
        (7, MTLGPUFamily::Apple7),
        (6, MTLGPUFamily::Apple6),
    ];
    let has = |family| device.supportsFamily(family);
    Facts {
        name: device.name().to_string(),
        apple: apple.into_iter().find(|(_, family)| has(*family)).map(|(number, _)| number),
        metal3: has(MTLGPUFamily::Metal3),
        metal4: has(MTLGPUFamily::Metal4),
        unified: device.hasUnifiedMemory(),
        system: (version.majorVersion, version.minorVersion),
        working_set: device.recommendedMaxWorkingSetSize(),
        cores: cores::of(device.registryID()),
    }
}
