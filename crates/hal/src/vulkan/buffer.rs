//! Heaps, buffers, and where a slice lies.
#![allow(unsafe_code)]

use std::sync::Arc;

use ash::vk;

use super::core::Core;
use super::memory::{Allocation, USAGE};
use crate::cpu::Extent;
use crate::{Buffer, BufferDesc, DeviceError, Heap, HeapDesc, Place, Result, Slice};

/// What a heap is behind its handle.
struct VulkanHeap {
    allocation: Arc<Allocation>,
}

/// What a buffer is behind its handle. An empty one has neither memory nor object.
pub(crate) struct VulkanBuffer {
    pub(crate) device: u64,
    pub(crate) raw: vk::Buffer,
    /// Where it begins in its allocation.
    offset: u64,
    allocation: Option<Arc<Allocation>>,
}

impl VulkanBuffer {
    /// The buffer behind a slice, if it is of the device.
    pub(crate) fn of(slice: &Slice, device: u64) -> Result<&Self> {
        slice.buffer.native.downcast_ref::<Self>().filter(|b| b.device == device).ok_or_else(|| {
            DeviceError::Usage(format!("buffer '{}' is of another device", slice.buffer.label()))
        })
    }

    /// The addresses of a slice of it.
    pub(crate) fn extent(&self, slice: &Slice) -> Extent {
        match &self.allocation {
            Some(allocation) => Extent::new(allocation.address + self.offset + slice.offset, slice.size),
            None => Extent::new(0, 0),
        }
    }

    /// Where the host sees a slice of it; `None` where it does not.
    pub(crate) fn host(&self, slice: &Slice) -> Option<*mut u8> {
        let allocation = self.allocation.as_ref().filter(|a| !a.host.is_null())?;
        Some(allocation.host.wrapping_add((self.offset + slice.offset) as usize))
    }

    /// Whether the host, where it sees it, reads it at full speed.
    pub(crate) fn cached(&self) -> bool {
        self.allocation.as_ref().is_some_and(|allocation| allocation.cached())
    }
}

impl Drop for VulkanBuffer {
    fn drop(&mut self) {
        if let Some(allocation) = &self.allocation {
            // SAFETY: submissions that use the buffer hold it, so there are none.
            unsafe { allocation.core.device.destroy_buffer(self.raw, None) };
        }
    }
}

pub(crate) fn create_heap(core: &Arc<Core>, desc: &HeapDesc<'_>) -> Result<Heap> {
    let kind = core.plan.device;
    let allocation = Allocation::new(core, &format!("heap '{}'", desc.label), kind, desc.size, None)?;
    Ok(Heap { size: desc.size, native: Arc::new(VulkanHeap { allocation: Arc::new(allocation) }) })
}

pub(crate) fn create_buffer(core: &Arc<Core>, desc: &BufferDesc<'_>) -> Result<Buffer> {
    let &BufferDesc { label, size, place } = desc;
    core.alive()?;
    let heap = match place {
        Place::Heap(heap, offset) => Some((locate(core, desc, heap, offset)?, offset)),
        Place::Own | Place::Staging => None,
    };
    let mut native = VulkanBuffer { device: core.id, raw: vk::Buffer::null(), offset: 0, allocation: None };
    if size > 0 {
        let what = format!("buffer '{label}'");
        let max = core.physical.v13.max_buffer_size;
        if size > max {
            return Err(DeviceError::OutOfMemory {
                what: format!("{what} (the driver's buffers have at most {max} bytes)"),
                requested: size,
                available: core.plan.left(core),
            });
        }
        let raw = create(core, size).map_err(|result| core.error(&what, result))?;
        let kind = if matches!(place, Place::Staging) { core.plan.staging } else { core.plan.device };
        let allocated = match heap {
            Some(placed) => Ok(placed),
            None => Allocation::new(core, &what, kind, size, Some(raw)).map(|own| (Arc::new(own), 0)),
        };
        let bound = allocated.and_then(|(allocation, offset)| {
            // SAFETY: the memory is of a type that buffers of this usage lie in, and the place is aligned and inside it.
            let bound = unsafe { core.device.bind_buffer_memory(raw, allocation.memory, offset) };
            bound.map(|()| (allocation, offset)).map_err(|result| core.error(&what, result))
        });
        match bound {
            Ok((allocation, offset)) => {
                core.name(raw, label);
                (native.raw, native.offset, native.allocation) = (raw, offset, Some(allocation));
            }
            Err(error) => {
                // SAFETY: the buffer was created above, and nobody knows of it.
                unsafe { core.device.destroy_buffer(raw, None) };
                return Err(error);
            }
        }
    }
    Ok(Buffer::new(label, size, Arc::new(native)))
}

/// The memory of a heap, when a buffer fits there.
fn locate(core: &Core, desc: &BufferDesc<'_>, heap: &Heap, offset: u64) -> Result<Arc<Allocation>> {
    let (label, size) = (desc.label, desc.size);
    let native = heap.native.downcast_ref::<VulkanHeap>().filter(|h| h.allocation.core.id == core.id);
    let Some(native) = native else {
        return Err(DeviceError::Usage(format!("buffer '{label}': its heap is of another device")));
    };
    if offset.checked_add(size).is_none_or(|end| end > heap.size) {
        return Err(DeviceError::Usage(format!(
            "buffer '{label}' at {offset}+{size} leaves its heap of {} bytes",
            heap.size
        )));
    }
    let alignment = core.plan.alignment;
    if !offset.is_multiple_of(alignment) {
        return Err(DeviceError::Usage(format!(
            "buffer '{label}': offset {offset} in its heap is not a multiple of {alignment}; round it up"
        )));
    }
    Ok(native.allocation.clone())
}

/// A buffer without memory. Shared between the families of all queues: ownership would have to be handed over by both
/// queues at every event, and for buffers, unlike images, sharing costs nothing on the hardware known.
pub(crate) fn create(core: &Core, size: u64) -> Result<vk::Buffer, vk::Result> {
    create_raw(&core.device, &core.families, size)
}

pub(crate) fn create_raw(
    device: &ash::Device,
    families: &[u32],
    size: u64,
) -> Result<vk::Buffer, vk::Result> {
    // SAFETY: the families are of this device, and the info lives over the call.
    unsafe { device.create_buffer(&buffer_info(families, size), None) }
}

pub(crate) fn buffer_info(families: &[u32], size: u64) -> vk::BufferCreateInfo<'_> {
    let info = vk::BufferCreateInfo::default().size(size).usage(USAGE);
    if families.len() > 1 {
        info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(families)
    } else {
        info.sharing_mode(vk::SharingMode::EXCLUSIVE)
    }
}
