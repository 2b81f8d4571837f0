//! Which device runs the model: named, or the best that there is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::cpu::{CpuDevice, CpuOptions};
use crate::vulkan::{VulkanDevice, VulkanOptions, adapters};
use crate::{Device, DeviceError, Result};

/// A choice of device, as a user writes it: `auto`, `cpu`, `vulkan`, `vulkan:N` or `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceSelect {
    /// Metal, else a real GPU through Vulkan, else the CPU.
    #[default]
    Auto,
    /// Threads of this process.
    Cpu,
    /// A GPU through Vulkan: the adapter of this index, or the best that is no software.
    Vulkan(Option<usize>),
    /// The GPU of an Apple system.
    Metal,
}

impl FromStr for DeviceSelect {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "vulkan" => Ok(Self::Vulkan(None)),
            None if text == "metal" => Ok(Self::Metal),
            Some(("vulkan", index)) => index.parse().map(|index| Self::Vulkan(Some(index))).map_err(|_| {
                DeviceError::Usage(format!(
                    "device '{text}': '{index}' is no index of a GPU; write vulkan:0 for the first"
                ))
            }),
            _ => Err(DeviceError::Usage(format!(
                "device '{text}' is not known; write auto, cpu, vulkan, vulkan:N or metal"
            ))),
        }
    }
}

impl fmt::Display for DeviceSelect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Vulkan(None) => f.write_str("vulkan"),
            Self::Vulkan(Some(index)) => write!(f, "vulkan:{index}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// How [`open`] sets a device up. What a device has no use for is ignored.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Threads of the CPU device; by default as many as the process may use at once.
    pub threads: Option<usize>,
    /// Bytes of heaps and buffers at most; by default what the system or the driver recommends.
    pub memory_budget: Option<u64>,
    /// Have the API's validation watch every call.
    pub validation: bool,
    /// A file that keeps compiled pipelines between runs.
    pub pipeline_cache: Option<PathBuf>,
}

/// Opens the device that was asked for.
///
/// # Errors
/// [`DeviceError::Unavailable`] when it is not there or cannot be used, with what was found instead.
/// [`DeviceSelect::Auto`] fails only when validation was asked for and the GPU cannot be watched.
pub fn open(select: DeviceSelect, options: &OpenOptions) -> Result<Arc<dyn Device>> {
    let named = |error: DeviceError| match error {
        DeviceError::Unavailable(reason) => DeviceError::Unavailable(format!(
            "device '{select}' was asked for: {reason}; or write --device cpu"
        )),
        other => other,
    };
    match select {
        DeviceSelect::Cpu => Ok(cpu(options)),
        DeviceSelect::Vulkan(adapter) => vulkan(adapter, options).map_err(named),
        DeviceSelect::Metal => metal(options).map_err(named),
        DeviceSelect::Auto => auto(options),
    }
}

/// Every device that this process could use, best first, each started with its defaults. GPUs made of software are none.
pub fn devices() -> Vec<Arc<dyn Device>> {
    let defaults = OpenOptions::default();
    let mut devices: Vec<_> = metal(&defaults).into_iter().collect();
    let mut gpus = adapters().unwrap_or_default();
    gpus.retain(|gpu| gpu.usable_by_itself());
    gpus.sort_by_key(crate::vulkan::Adapter::rank);
    devices.extend(gpus.iter().filter_map(|gpu| vulkan(Some(gpu.index), &defaults).ok()));
    devices.push(cpu(&defaults));
    devices
}

fn auto(options: &OpenOptions) -> Result<Arc<dyn Device>> {
    if let Ok(device) = metal(options) {
        return Ok(device);
    }
    match vulkan(None, options) {
        Ok(device) => Ok(device),
        // A GPU that is there and cannot be watched is not to be passed over in silence.
        Err(error)
            if options.validation && adapters().is_ok_and(|all| all.iter().any(|a| a.usable_by_itself())) =>
        {
            Err(error)
        }
        Err(error) => {
            tracing::info!("no GPU is used: {error}");
            Ok(cpu(options))
        }
    }
}

fn cpu(options: &OpenOptions) -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { threads: options.threads, memory_budget: options.memory_budget })
}

fn vulkan(adapter: Option<usize>, options: &OpenOptions) -> Result<Arc<dyn Device>> {
    let device = VulkanDevice::new(&VulkanOptions {
        adapter,
        validation: options.validation,
        pipeline_cache: options.pipeline_cache.clone(),
        memory_budget: options.memory_budget,
        ..VulkanOptions::default()
    })?;
    Ok(device)
}

#[cfg(target_vendor = "apple")]
fn metal(options: &OpenOptions) -> Result<Arc<dyn Device>> {
    use crate::metal::{MetalDevice, MetalOptions};
    let device = MetalDevice::new(&MetalOptions {
        pipeline_cache: options.pipeline_cache.clone(),
        memory_budget: options.memory_budget,
        ..MetalOptions::default()
    })?;
    Ok(device)
}

#[cfg(not(target_vendor = "apple"))]
fn metal(_: &OpenOptions) -> Result<Arc<dyn Device>> {
    Err(DeviceError::Unavailable("Metal is on Apple's systems only".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        for text in ["auto", "cpu", "vulkan", "vulkan:0", "vulkan:12", "metal"] {
            assert_eq!(text.parse::<DeviceSelect>().map(|d| d.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(DeviceSelect::default(), DeviceSelect::Auto);
    }

    #[test]
    fn a_wrong_choice_is_told_what_to_write() {
        for (text, parts) in [
            ("gpu", ["'gpu'", "vulkan:N"]),
            ("", ["''", "auto"]),
            ("cpu:1", ["'cpu:1'", "cpu, vulkan"]),
            ("vulkan:first", ["'first'", "vulkan:0"]),
            ("vulkan:-1", ["'-1'", "vulkan:0"]),
            ("vulkan:", ["''", "vulkan:0"]),
        ] {
            let message = text.parse::<DeviceSelect>().unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[test]
    #[cfg(not(target_vendor = "apple"))]
    fn what_is_not_there_is_refused_by_its_name() {
        let message = open(DeviceSelect::Metal, &OpenOptions::default()).unwrap_err().to_string();
        assert!(message.contains("'metal'") && message.contains("--device cpu"), "{message}");
        let message = open(DeviceSelect::Vulkan(Some(999)), &OpenOptions::default()).unwrap_err().to_string();
        assert!(message.contains("'vulkan:999'"), "{message}");
    }

    #[test]
    fn the_cpu_is_opened_as_asked() {
        let options =
            OpenOptions { threads: Some(3), memory_budget: Some(1 << 20), ..OpenOptions::default() };
        let limits = open(DeviceSelect::Cpu, &options).unwrap().info().limits.clone();
        assert_eq!((limits.workers, limits.memory_budget), (3, 1 << 20));
        assert!(limits.gpu.is_none());
    }
}
