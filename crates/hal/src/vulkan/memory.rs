//! Memory: of the device, counted against a budget, and of the host for staging.
//!
//! - One memory type serves every heap and every buffer but those for staging: the device's own memory *that the host sees*
//!   where that is (nearly) all of it, as with unified memory and a resizable BAR; else plain device memory, filled through
//!   `staging`.
//! - *Staging* is memory of the host, where the device has such beside its own: cached, for the sake of reads. It counts
//!   against the budget only where there is one memory for both.
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

/// A memory type, and what it means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryKind {
    pub(crate) memory_type: u32,
    /// The host sees it.
    pub(crate) mapped: bool,
    /// The host reads it through a cache, and so at full speed.
    pub(crate) cached: bool,
    /// It counts against the budget.
    counted: bool,
}

/// Where memory comes from, and how much of it.
#[derive(Debug)]
pub(crate) struct MemoryPlan {
    /// Of heaps and buffers.
    pub(crate) device: MemoryKind,
    /// Of buffers for staging; the device's where the host sees no other.
    pub(crate) staging: MemoryKind,
    heap: u32,
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
        let device = MemoryKind {
            memory_type: index as u32,
            mapped: mapped.is_some(),
            cached: chosen.property_flags.contains(Flags::HOST_CACHED),
            counted: true,
        };
        let staging = staging_type(types, requirements.memory_type_bits).map(|index| MemoryKind {
            memory_type: index as u32,
            mapped: true,
            cached: types[index].property_flags.contains(Flags::HOST_CACHED),
            counted: types[index].heap_index == chosen.heap_index,
        });
        let mut plan = Self {
            device,
            staging: staging.unwrap_or(device),
            heap: chosen.heap_index,
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

/// The best of these memory types for bytes on their way between host and device: of the host where there is such, and cached.
pub(crate) fn staging_type(types: &[vk::MemoryType], type_bits: u32) -> Option<usize> {
    use vk::MemoryPropertyFlags as Flags;
    let find = |flags: Flags, not: Flags| {
        types.iter().enumerate().position(|(i, t)| {
            type_bits & (1 << i) != 0
                && t.property_flags.contains(flags)
                && !t.property_flags.intersects(not | Flags::PROTECTED)
        })
    };
    let visible = Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
    find(visible | Flags::HOST_CACHED, Flags::DEVICE_LOCAL)
        // Memory of the device is cached on the host only where it is the host's too.
        .or_else(|| find(visible | Flags::HOST_CACHED, Flags::empty()))
        .or_else(|| find(visible, Flags::DEVICE_LOCAL))
        .or_else(|| find(visible, Flags::empty()))
}

/// A piece of memory, returned when dropped.
pub(crate) struct Allocation {
    pub(crate) core: Arc<Core>,
    pub(crate) memory: vk::DeviceMemory,
    pub(crate) size: u64,
    /// First of its addresses.
    pub(crate) address: u64,
    kind: MemoryKind,
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
    pub(crate) fn new(
        core: &Arc<Core>,
        what: &str,
        kind: MemoryKind,
        size: u64,
        buffer: Option<vk::Buffer>,
    ) -> Result<Self> {
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
            now.checked_add(kind.counts(span)).filter(|&sum| sum <= plan.budget)
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
            kind,
            host: std::ptr::null_mut(),
        };
        if plan.allocations.fetch_add(1, Ordering::AcqRel) >= plan.max_allocations {
            return Err(refused(format!(
                "{what} (the driver allows {} allocations at a time; place buffers in a heap)",
                plan.max_allocations
            )));
        }
        let free = plan.free(&core.instance.raw, core.physical.raw);
        if free.is_some_and(|free| kind.counts(span) > free) {
            return Err(refused(what.into()));
        }
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default();
        let mut info =
            vk::MemoryAllocateInfo::default().allocation_size(span).memory_type_index(kind.memory_type);
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
        if kind.mapped {
            // SAFETY: the memory is host visible, and nobody else maps it.
            let host = unsafe {
                core.device.map_memory(allocation.memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
            };
            allocation.host = host.map_err(|result| core.error(what, result))?.cast();
        }
        Ok(allocation)
    }

    /// Whether the host reads it at full speed.
    pub(crate) fn cached(&self) -> bool {
        self.kind.cached
    }
}

impl MemoryKind {
    /// What so many bytes are for the budget.
    fn counts(&self, bytes: u64) -> u64 {
        if self.counted { bytes } else { 0 }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.memory != vk::DeviceMemory::null() {
            // SAFETY: buffers in it and submissions that use it hold the allocation, so there are none; freeing unmaps.
            unsafe { self.core.device.free_memory(self.memory, None) };
        }
        self.core.plan.allocations.fetch_sub(1, Ordering::AcqRel);
        self.core.plan.allocated.fetch_sub(self.kind.counts(self.size), Ordering::AcqRel);
    }
}

/// Whether host and device share one memory, rather than the host looking into the device's.
pub(crate) fn unified(physical: &Physical, plan: &MemoryPlan) -> bool {
    plan.device.mapped && matches!(physical.adapter.kind, AdapterKind::Integrated | AdapterKind::Software)
}

#[cfg(test)]
mod tests {
    use vk::MemoryPropertyFlags as Flags;

    use super::*;

    const VISIBLE: Flags = Flags::from_raw(Flags::HOST_VISIBLE.as_raw() | Flags::HOST_COHERENT.as_raw());

    fn chosen(types: &[Flags], type_bits: u32) -> Option<usize> {
        let kind =
            |(at, flags): (usize, &Flags)| vk::MemoryType { property_flags: *flags, heap_index: at as u32 };
        staging_type(&types.iter().enumerate().map(kind).collect::<Vec<_>>(), type_bits)
    }

    #[test]
    fn staging_is_cached_memory_of_the_host_where_there_is_such() {
        let (local, cached) = (Flags::DEVICE_LOCAL, Flags::HOST_CACHED);
        // A card with a resizable BAR.
        let card = [Flags::empty(), local, VISIBLE, VISIBLE | cached, local | VISIBLE];
        assert_eq!(chosen(&card, u32::MAX), Some(3));
        assert_eq!(chosen(&card, 0b10111), Some(2), "where buffers cannot lie in cached memory");
        assert_eq!(chosen(&card, 0b10011), Some(4), "where they can lie in the card's alone");
        assert_eq!(chosen(&card, 0b00011), None);
        // One memory for both.
        assert_eq!(chosen(&[local | VISIBLE, local | VISIBLE | cached], u32::MAX), Some(1));
        assert_eq!(chosen(&[local, VISIBLE | cached | Flags::PROTECTED], u32::MAX), None);
        assert_eq!(chosen(&[local | VISIBLE | cached, VISIBLE], u32::MAX), Some(0));
    }
}
