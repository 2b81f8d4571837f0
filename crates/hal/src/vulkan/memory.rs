//! Device memory: one kind of it, counted against a budget.
//!
//! - One memory type serves every heap and every buffer: the device's own memory *that the host sees* where that is
//!   (nearly) all of it, as with unified memory and a resizable BAR; else plain device memory, filled through `staging`.
//! - Every allocation has *addresses* of its own on the host, which no GPU knows: two slices use the same bytes when their
//!   addresses overlap, also through buffers that alias in a heap.
//! - The driver is asked before the budget is exceeded, where it tells (`VK_EXT_memory_budget`): drivers that overcommit
//!   would move memory to the host and be slow without a word.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ash::vk;

use super::adapter::{AdapterKind, Physical};
use super::core::Core;
use crate::{DeviceError, Result};

/// What buffers are used for; all are alike.
pub(crate) const USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::STORAGE_BUFFER.as_raw()
        | vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// Where memory comes from, and how much of it.
#[derive(Debug)]
pub(crate) struct MemoryPlan {
    pub(crate) memory_type: u32,
    heap: u32,
    /// The host sees device memory.
    pub(crate) mapped: bool,
    /// The host reads it through a cache, and so at full speed.
    pub(crate) cached: bool,
    /// Of buffers inside a heap.
    pub(crate) alignment: u64,
    /// Bytes at most.
    pub(crate) budget: u64,
    /// The driver tells what is free.
    live_budget: bool,
    allocated: AtomicU64,
    allocations: AtomicU64,
    max_allocations: u64,
    next_address: AtomicU64,
}

impl MemoryPlan {
    /// Chooses a type among `type_bits`, those that buffers can lie in.
    pub(crate) fn new(
        physical: &Physical,
        instance: &ash::Instance,
        requirements: vk::MemoryRequirements,
        prefer_staging: bool,
        budget: Option<u64>,
    ) -> Result<Self> {
        use vk::MemoryPropertyFlags as Flags;
        let types = physical.memory.memory_types_as_slice();
        let heaps = physical.memory.memory_heaps_as_slice();
        let largest = super::adapter::largest_heap(&physical.memory);
        let find = |flags: Flags| {
            types.iter().enumerate().find(|(i, t)| {
                requirements.memory_type_bits & (1 << i) != 0
                    && t.property_flags.contains(flags)
                    && !t.property_flags.contains(Flags::PROTECTED)
                    // A small window into the memory does not count as all of it.
                    && heaps[t.heap_index as usize].size >= largest / 10 * 9
            })
        };
        let visible = Flags::DEVICE_LOCAL | Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
        let mapped = if prefer_staging { None } else { find(visible) };
        let Some((index, chosen)) = mapped.or_else(|| find(Flags::DEVICE_LOCAL)) else {
            return Err(DeviceError::Unavailable("its driver has no device memory for buffers".into()));
        };
        let live_budget = physical.has(ash::ext::memory_budget::NAME);
        let mut plan = Self {
            memory_type: index as u32,
            heap: chosen.heap_index,
            mapped: mapped.is_some(),
            cached: chosen.property_flags.contains(Flags::HOST_CACHED),
            alignment: requirements
                .alignment
                .max(physical.limits.min_storage_buffer_offset_alignment)
                .max(16),
            budget: heaps[chosen.heap_index as usize].size,
            live_budget,
            allocated: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
            max_allocations: u64::from(physical.limits.max_memory_allocation_count),
            next_address: AtomicU64::new(1 << 20),
        };
        if let Some(free) = plan.free(instance, physical.raw) {
            plan.budget = plan.budget.min(free);
        }
        plan.budget = plan.budget.min(budget.unwrap_or(u64::MAX));
        Ok(plan)
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Acquire)
    }

    /// Bytes that the driver would give now.
    fn free(&self, instance: &ash::Instance, device: vk::PhysicalDevice) -> Option<u64> {
        if !self.live_budget {
            return None;
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut chain = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: the device has the extension that knows the chained struct.
        unsafe { instance.get_physical_device_memory_properties2(device, &mut chain) };
        let heap = self.heap as usize;
        Some(budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap]))
    }

    /// Bytes left under the budget and at the driver.
    pub(crate) fn left(&self, core: &Core) -> u64 {
        let own = self.budget.saturating_sub(self.allocated());
        own.min(self.free(&core.instance.raw, core.physical.raw).unwrap_or(u64::MAX))
    }
}

/// A piece of device memory, returned when dropped.
pub(crate) struct Allocation {
    pub(crate) core: Arc<Core>,
    pub(crate) memory: vk::DeviceMemory,
    pub(crate) size: u64,
    /// First of its addresses.
    pub(crate) address: u64,
    /// Where the host sees it; null where it does not.
    pub(crate) host: *mut u8,
}

// SAFETY: the pointer is to mapped device memory, which any thread may access; who may touch which bytes when is decided
// by the ledger.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Allocation {
    /// `size` bytes; where a buffer is given, for that alone, and as many as it asks for.
    pub(crate) fn new(core: &Arc<Core>, what: &str, size: u64, buffer: Option<vk::Buffer>) -> Result<Self> {
        core.alive()?;
        let plan = &core.plan;
        let refused =
            |what: String| DeviceError::OutOfMemory { what, requested: size, available: plan.left(core) };
        let span = match buffer {
            // SAFETY: the buffer lives; the call only asks.
            Some(buffer) => unsafe { core.device.get_buffer_memory_requirements(buffer) }.size,
            // The last buffer of a heap asks for its size, rounded up.
            None => {
                size.max(1).checked_next_multiple_of(plan.alignment).ok_or_else(|| refused(what.into()))?
            }
        };
        let grown = plan.allocated.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            now.checked_add(span).filter(|&sum| sum <= plan.budget)
        });
        if grown.is_err() {
            return Err(refused(what.into()));
        }
        // From here on dropping the allocation gives the bytes back to the budget.
        let mut allocation = Self {
            core: core.clone(),
            memory: vk::DeviceMemory::null(),
            size: span,
            address: plan.next_address.fetch_add(span, Ordering::Relaxed),
            host: std::ptr::null_mut(),
        };
        if plan.allocations.fetch_add(1, Ordering::AcqRel) >= plan.max_allocations {
            return Err(refused(format!(
                "{what} (the driver allows {} allocations at a time; place buffers in a heap)",
                plan.max_allocations
            )));
        }
        let free = plan.free(&core.instance.raw, core.physical.raw);
        if free.is_some_and(|free| span > free) {
            return Err(refused(what.into()));
        }
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default();
        let mut info =
            vk::MemoryAllocateInfo::default().allocation_size(span).memory_type_index(plan.memory_type);
        if let Some(buffer) = buffer {
            dedicated = dedicated.buffer(buffer);
            info = info.push_next(&mut dedicated);
        }
        // SAFETY: the type is one of the device's, and the chained struct lives over the call.
        let memory = unsafe { core.device.allocate_memory(&info, None) };
        allocation.memory = memory.map_err(|result| match core.error(what, result) {
            DeviceError::OutOfMemory { .. } => refused(what.into()),
            other => other,
        })?;
        core.name(allocation.memory, what);
        if plan.mapped {
            // SAFETY: the memory is host visible, and nobody else maps it.
            let host = unsafe {
                core.device.map_memory(allocation.memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
            };
            allocation.host = host.map_err(|result| core.error(what, result))?.cast();
        }
        Ok(allocation)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.memory != vk::DeviceMemory::null() {
            // SAFETY: buffers in it and submissions that use it hold the allocation, so there are none; freeing unmaps.
            unsafe { self.core.device.free_memory(self.memory, None) };
        }
        self.core.plan.allocations.fetch_sub(1, Ordering::AcqRel);
        self.core.plan.allocated.fetch_sub(self.size, Ordering::AcqRel);
    }
}

/// Whether host and device share one memory, rather than the host looking into the device's.
pub(crate) fn unified(physical: &Physical, plan: &MemoryPlan) -> bool {
    plan.mapped && matches!(physical.adapter.kind, AdapterKind::Integrated | AdapterKind::Software)
}
