//! The GPUs of this system, and which of them kernels run on.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt;

use ash::vk;

use super::features::Features;
use super::instance::Instance;
use crate::{DeviceError, GpuLimits, Result};

/// A GPU that Vulkan reports.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// What it is asked for by: its place in the loader's order.
    pub index: usize,
    /// The name that its maker gave it.
    pub name: String,
    /// What it is made of.
    pub kind: AdapterKind,
    /// Bytes of its own memory, or of the host's that it shares.
    pub memory: u64,
    /// Name and version of its driver.
    pub driver: String,
    /// The version of Vulkan that its driver speaks.
    pub api: String,
    /// Why kernels cannot run on it; `None` when they can.
    pub unusable: Option<String>,
}

/// What an adapter is made of, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU, or a part of one, in a virtual machine.
    Virtual,
    /// Something that the driver does not name.
    Other,
    /// Shaders on the CPU: for tests, never chosen by itself.
    Software,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        })
    }
}

impl Adapter {
    /// Kernels run on it, and it is chosen without being named.
    pub(crate) fn usable_by_itself(&self) -> bool {
        self.unusable.is_none() && self.kind != AdapterKind::Software
    }

    /// Its place among others, the best first.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        (self.kind, std::cmp::Reverse(self.memory), self.index)
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}, {}, Vulkan {}", self.index, self.name, self.kind, self.driver, self.api)?;
        match &self.unusable {
            Some(reason) => write!(f, "; unusable: {reason})"),
            None => write!(f, ")"),
        }
    }
}

/// Every GPU that Vulkan reports on this system, usable or not.
///
/// # Errors
/// [`DeviceError::Unavailable`] when there is no loader or no driver.
pub fn adapters() -> Result<Vec<Adapter>> {
    let instance = Instance::new(false)?;
    Ok(physicals(&instance)?.into_iter().map(|p| p.adapter).collect())
}

/// An adapter with everything that the device is set up by.
pub(crate) struct Physical {
    pub(crate) raw: vk::PhysicalDevice,
    pub(crate) adapter: Adapter,
    pub(crate) features: Features,
    pub(crate) limits: vk::PhysicalDeviceLimits,
    pub(crate) v13: vk::PhysicalDeviceVulkan13Properties<'static>,
    pub(crate) memory: vk::PhysicalDeviceMemoryProperties,
    pub(crate) families: Vec<vk::QueueFamilyProperties>,
    pub(crate) extensions: Vec<vk::ExtensionProperties>,
    pub(crate) cooperative_matrix: bool,
    pub(crate) max_allocation: u64,
    pub(crate) max_push_descriptors: u32,
    pub(crate) workers: u32,
}

pub(crate) fn physicals(instance: &Instance) -> Result<Vec<Physical>> {
    Ok(instance
        .physical_devices()?
        .into_iter()
        .enumerate()
        .map(|(index, raw)| physical(instance, index, raw))
        .collect())
}

/// The adapter asked for, or the best usable one that is no software.
pub(crate) fn choose(instance: &Instance, index: Option<usize>) -> Result<Physical> {
    let mut found = physicals(instance)?;
    let list = || {
        let all: Vec<_> = found.iter().map(|p| p.adapter.to_string()).collect();
        if all.is_empty() { "none was found".to_owned() } else { format!("found: {}", all.join("; ")) }
    };
    let place = match index {
        Some(index) => {
            let Some(physical) = found.get(index) else {
                return Err(DeviceError::Unavailable(format!("there is no Vulkan GPU {index}; {}", list())));
            };
            if let Some(reason) = &physical.adapter.unusable {
                let name = &physical.adapter.name;
                return Err(DeviceError::Unavailable(format!(
                    "Vulkan GPU {index} ({name}) cannot be used: {reason}"
                )));
            }
            index
        }
        None => {
            let usable = found.iter().filter(|p| p.adapter.usable_by_itself());
            let best = usable.min_by_key(|p| p.adapter.rank());
            let Some(best) = best else {
                return Err(DeviceError::Unavailable(format!("no usable Vulkan GPU; {}", list())));
            };
            best.adapter.index
        }
    };
    Ok(found.swap_remove(place))
}

impl Physical {
    pub(crate) fn has(&self, extension: &CStr) -> bool {
        has(&self.extensions, extension)
    }

    pub(crate) fn gpu_limits(&self) -> GpuLimits {
        let limits = &self.limits;
        GpuLimits {
            min_subgroup: self.v13.min_subgroup_size,
            max_subgroup: self.v13.max_subgroup_size,
            workgroup_memory: limits.max_compute_shared_memory_size,
            workgroup_threads: limits.max_compute_work_group_invocations,
            max_groups: limits.max_compute_work_group_count,
            cooperative_matrix: self.cooperative_matrix,
            int8_dot: self.v13.integer_dot_product4x8_bit_packed_signed_accelerated != 0,
            software: self.adapter.kind == AdapterKind::Software,
        }
    }
}

fn has(extensions: &[vk::ExtensionProperties], name: &CStr) -> bool {
    extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(name))
}

fn physical(instance: &Instance, index: usize, raw: vk::PhysicalDevice) -> Physical {
    // SAFETY: the calls only ask, of a device that the instance reported.
    let (basic, memory, families, extensions) = unsafe {
        (
            instance.raw.get_physical_device_properties(raw),
            instance.raw.get_physical_device_memory_properties(raw),
            instance.raw.get_physical_device_queue_family_properties(raw),
            instance.raw.enumerate_device_extension_properties(raw).unwrap_or_default(),
        )
    };
    let kind = match basic.device_type {
        vk::PhysicalDeviceType::DISCRETE_GPU => AdapterKind::Discrete,
        vk::PhysicalDeviceType::INTEGRATED_GPU => AdapterKind::Integrated,
        vk::PhysicalDeviceType::VIRTUAL_GPU => AdapterKind::Virtual,
        vk::PhysicalDeviceType::CPU => AdapterKind::Software,
        _ => AdapterKind::Other,
    };
    let text =
        |text: Result<&CStr, _>| text.map_or_else(|_| String::new(), |t: &CStr| t.to_string_lossy().into());
    let version = basic.api_version;
    let mut physical = Physical {
        raw,
        adapter: Adapter {
            index,
            name: text(basic.device_name_as_c_str()),
            kind,
            memory: largest_heap(&memory),
            driver: format!("driver {:#x}", basic.driver_version),
            api: format!(
                "{}.{}.{}",
                vk::api_version_major(version),
                vk::api_version_minor(version),
                vk::api_version_patch(version)
            ),
            unusable: None,
        },
        features: Features::default(),
        limits: basic.limits,
        v13: vk::PhysicalDeviceVulkan13Properties::default(),
        memory,
        families,
        extensions,
        cooperative_matrix: false,
        max_allocation: 0,
        max_push_descriptors: 0,
        workers: 0,
    };
    physical.adapter.unusable = if version < vk::API_VERSION_1_3 {
        Some(format!("its driver speaks Vulkan {}; 1.3 is needed", physical.adapter.api))
    } else {
        complete(instance, &mut physical)
    };
    physical
}

/// Fills in what only a device of Vulkan 1.3 tells; the result is why it cannot be used.
fn complete(instance: &Instance, physical: &mut Physical) -> Option<String> {
    let matrix = physical.has(ash::khr::cooperative_matrix::NAME);
    physical.features = Features::supported(&instance.raw, physical.raw, matrix);
    let mut v11 = vk::PhysicalDeviceVulkan11Properties::default();
    let mut v12 = vk::PhysicalDeviceVulkan12Properties::default();
    let mut v13 = vk::PhysicalDeviceVulkan13Properties::default();
    let mut push = vk::PhysicalDevicePushDescriptorPropertiesKHR::default();
    let mut sm = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
    let mut cores = vk::PhysicalDeviceShaderCorePropertiesAMD::default();
    let mut active = vk::PhysicalDeviceShaderCoreProperties2AMD::default();
    let mut chain =
        vk::PhysicalDeviceProperties2::default().push_next(&mut v11).push_next(&mut v12).push_next(&mut v13);
    if physical.has(ash::khr::push_descriptor::NAME) {
        chain = chain.push_next(&mut push);
    }
    if physical.has(ash::nv::shader_sm_builtins::NAME) {
        chain = chain.push_next(&mut sm);
    }
    if physical.has(ash::amd::shader_core_properties::NAME) {
        chain = chain.push_next(&mut cores);
    }
    if physical.has(ash::amd::shader_core_properties2::NAME) {
        chain = chain.push_next(&mut active);
    }
    // SAFETY: the chain holds structs that live over the call and that the device knows.
    unsafe { instance.raw.get_physical_device_properties2(physical.raw, &mut chain) };
    v13.p_next = std::ptr::null_mut();
    physical.v13 = v13;
    physical.max_allocation = v11.max_memory_allocation_size;
    physical.max_push_descriptors = push.max_push_descriptors;
    let amd = cores.shader_engine_count
        * cores.shader_arrays_per_engine_count
        * cores.compute_units_per_shader_array;
    physical.workers = [sm.shader_sm_count, active.active_compute_unit_count, amd]
        .into_iter()
        .find(|&n| n > 0)
        .unwrap_or_else(|| estimated_workers(physical.adapter.kind));
    let text =
        |text: Result<&CStr, _>| text.map_or_else(|_| String::new(), |t: &CStr| t.to_string_lossy().into());
    let (name, info): (String, String) = (text(v12.driver_name_as_c_str()), text(v12.driver_info_as_c_str()));
    physical.adapter.driver = format!("{name} {info}").trim().to_owned();
    physical.cooperative_matrix = matrix
        && physical.features.matrix.cooperative_matrix != 0
        && physical.features.v12.vulkan_memory_model != 0
        && v11.subgroup_supported_stages.contains(vk::ShaderStageFlags::COMPUTE)
        && multiplies_16_by_16(instance, physical.raw);
    if !physical.families.iter().any(|f| f.queue_flags.contains(vk::QueueFlags::COMPUTE)) {
        return Some("it has no compute queue".into());
    }
    physical.features.missing(&v11)
}

/// Whether a subgroup multiplies 16 × 16 matrices of `f16` and sums in `f32`.
fn multiplies_16_by_16(instance: &Instance, device: vk::PhysicalDevice) -> bool {
    use vk::ComponentTypeKHR as Component;
    let matrix = ash::khr::cooperative_matrix::Instance::new(&instance.entry, &instance.raw);
    // SAFETY: the device reported the extension; the call only asks.
    let sizes = unsafe { matrix.get_physical_device_cooperative_matrix_properties(device) };
    sizes.unwrap_or_default().iter().any(|p| {
        (p.m_size, p.n_size, p.k_size) == (16, 16, 16)
            && (p.a_type, p.b_type) == (Component::FLOAT16, Component::FLOAT16)
            && (p.c_type, p.result_type) == (Component::FLOAT32, Component::FLOAT32)
            && p.scope == vk::ScopeKHR::SUBGROUP
    })
}

/// Compute units of a GPU whose driver does not tell: what a middling one of its kind has.
fn estimated_workers(kind: AdapterKind) -> u32 {
    match kind {
        AdapterKind::Software => {
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
        }
        AdapterKind::Discrete => 32,
        AdapterKind::Integrated | AdapterKind::Virtual | AdapterKind::Other => 8,
    }
}

/// Bytes of the largest heap that is the device's own.
pub(crate) fn largest_heap(memory: &vk::PhysicalDeviceMemoryProperties) -> u64 {
    let local = memory.memory_heaps_as_slice().iter();
    let local = local.filter(|h| h.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    local.map(|h| h.size).max().unwrap_or(0)
}
