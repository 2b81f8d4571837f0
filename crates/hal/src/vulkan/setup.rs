//! From a physical device to a working one: queues, extensions, memory.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::sync::{Arc, Mutex};

use ash::vk;

use super::adapter::Physical;
use super::buffer;
use super::clock::Clock;
use super::core::{Core, Parts};
use super::device::VulkanOptions;
use super::instance::Instance;
use super::lane::Lane;
use super::memory::MemoryPlan;
use super::pipeline_cache::PipelineCache;
use crate::{DeviceError, Result};

/// Which queue a lane goes to: a family and a place in it.
type Seat = (u32, u32);

/// Bytes of the buffer that stands for empty bindings.
const FILLER: u64 = 256;

pub(crate) fn core(instance: Instance, physical: Physical, options: &VulkanOptions) -> Result<Core> {
    let failed = |result: vk::Result| {
        DeviceError::Unavailable(format!("GPU '{}' cannot be opened: {result}", physical.adapter.name))
    };
    let seats = seats(&physical.families);
    let device = device(&instance, &physical, &seats).map_err(failed)?;
    match assemble(&instance, &physical, &device, &seats, options) {
        Ok(rest) => {
            let push = physical.has(ash::khr::push_descriptor::NAME);
            let push = push.then(|| ash::khr::push_descriptor::Device::new(&instance.raw, &device));
            let debug = instance.debug().then(|| ash::ext::debug_utils::Device::new(&instance.raw, &device));
            let Rest { plan, lanes, families, clock, cache } = rest;
            let core = Core::new(Parts {
                instance,
                physical,
                device,
                push,
                debug,
                plan,
                lanes,
                families,
                clock,
                cache,
            });
            add_filler(&core)?;
            Ok(core)
        }
        Err(error) => {
            // SAFETY: what had been made of the device is destroyed or, of a device that is thus given up, forgotten.
            unsafe { device.destroy_device(None) };
            Err(error)
        }
    }
}

struct Rest {
    plan: MemoryPlan,
    lanes: [Lane; 3],
    families: Vec<u32>,
    clock: Option<Clock>,
    cache: PipelineCache,
}

fn assemble(
    instance: &Instance,
    physical: &Physical,
    device: &ash::Device,
    seats: &[Seat; 3],
    options: &VulkanOptions,
) -> Result<Rest> {
    let mut families: Vec<u32> = seats.iter().map(|s| s.0).collect();
    families.sort_unstable();
    families.dedup();
    let info = buffer::buffer_info(&families, 1 << 20);
    let info = vk::DeviceBufferMemoryRequirements::default().create_info(&info);
    let mut requirements = vk::MemoryRequirements2::default();
    // SAFETY: the calls only ask.
    let properties = unsafe {
        device.get_device_buffer_memory_requirements(&info, &mut requirements);
        instance.raw.get_physical_device_properties(physical.raw)
    };
    let plan = MemoryPlan::new(
        physical,
        &instance.raw,
        requirements.memory_requirements,
        options.prefer_staging,
        options.memory_budget,
    )?;
    let failed = |result: vk::Result| {
        DeviceError::Unavailable(format!("GPU '{}' cannot be set up: {result}", physical.adapter.name))
    };
    let mut queues: BTreeMap<Seat, Arc<Mutex<vk::Queue>>> = BTreeMap::new();
    let mut lane = |seat: Seat| {
        let queue = queues.entry(seat).or_insert_with(|| {
            // SAFETY: the device was made with a queue in every seat.
            Arc::new(Mutex::new(unsafe { device.get_device_queue(seat.0, seat.1) }))
        });
        Lane::new(device, seat.0, queue.clone()).map_err(failed)
    };
    let lanes = [lane(seats[0])?, lane(seats[1])?, lane(seats[2])?];
    let bits = seats[..2].iter().map(|s| physical.families[s.0 as usize].timestamp_valid_bits).min();
    let clock = bits.filter(|&bits| bits > 0).map(|bits| Clock::new(physical.limits.timestamp_period, bits));
    let cache = PipelineCache::open(device, &properties, options.pipeline_cache.clone()).map_err(failed)?;
    Ok(Rest { plan, lanes, families, clock, cache })
}

/// The queues of compute, transfer, and host copies: of their own where the GPU has as many, shared where not.
fn seats(families: &[vk::QueueFamilyProperties]) -> [Seat; 3] {
    use vk::QueueFlags as Flags;
    let numbered = || (0_u32..).zip(families);
    // A family for compute alone, where there is one, does not share with what a display does.
    let compute = numbered().filter(|(_, f)| f.queue_flags.contains(Flags::COMPUTE));
    let compute = compute.min_by_key(|(_, f)| f.queue_flags.contains(Flags::GRAPHICS)).map_or(0, |(i, _)| i);
    let copies_only = |f: &vk::QueueFamilyProperties| {
        f.queue_flags.contains(Flags::TRANSFER)
            && !f.queue_flags.intersects(Flags::COMPUTE | Flags::GRAPHICS)
            // Copies of any byte.
            && f.min_image_transfer_granularity == vk::Extent3D { width: 1, height: 1, depth: 1 }
            && !f.queue_flags.intersects(Flags::VIDEO_DECODE_KHR | Flags::VIDEO_ENCODE_KHR)
    };
    let transfer = numbered().find(|(_, f)| copies_only(f)).map_or(compute, |(i, _)| i);
    let count = |family: u32| families.get(family as usize).map_or(1, |f| f.queue_count);
    let first = u32::from(transfer == compute);
    let seat = |nth: u32| (transfer, (first + nth).min(count(transfer).saturating_sub(1)));
    [(compute, 0), seat(0), seat(1)]
}

fn device(instance: &Instance, physical: &Physical, seats: &[Seat; 3]) -> Result<ash::Device, vk::Result> {
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for (family, place) in seats {
        let count = counts.entry(*family).or_default();
        *count = (place + 1).max(*count);
    }
    let priorities = [1.0; 3];
    let queues: Vec<_> = counts
        .iter()
        .map(|(&family, &count)| {
            vk::DeviceQueueCreateInfo::default()
                .queue_family_index(family)
                .queue_priorities(&priorities[..count as usize])
        })
        .collect();
    let wanted = [ash::khr::push_descriptor::NAME, ash::ext::memory_budget::NAME];
    let mut extensions: Vec<*const c_char> =
        wanted.into_iter().filter(|name| physical.has(name)).map(std::ffi::CStr::as_ptr).collect();
    let mut features = physical.features.enabled(physical.cooperative_matrix);
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_features(&features.core)
        .push_next(&mut features.v11)
        .push_next(&mut features.v12)
        .push_next(&mut features.v13);
    if physical.cooperative_matrix {
        extensions.push(ash::khr::cooperative_matrix::NAME.as_ptr());
        info = info.push_next(&mut features.matrix);
    }
    let info = info.enabled_extension_names(&extensions);
    // SAFETY: families, extensions and features are what the device reports; everything lives over the call.
    unsafe { instance.raw.create_device(physical.raw, &info, None) }
}

/// Makes the buffer that is bound where a slice is empty.
fn add_filler(core: &Core) -> Result<()> {
    let failed = |result: vk::Result| core.error("the buffer of empty bindings", result);
    let buffer = buffer::create(core, FILLER).map_err(failed)?;
    // SAFETY: the buffer is new; memory is bound once, and both are destroyed with the device.
    let made = unsafe {
        let needs = core.device.get_buffer_memory_requirements(buffer);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(core.plan.device.memory_type);
        core.device.allocate_memory(&info, None).and_then(|memory| {
            let bound = core.device.bind_buffer_memory(buffer, memory, 0);
            // The device owns both from here on, bound or not.
            core.filler.get_or_init(|| (buffer, memory));
            bound
        })
    };
    core.name(buffer, "empty binding");
    made.map_err(failed)
}
