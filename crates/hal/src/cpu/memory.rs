//! Heaps and buffers over arenas.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arena::{ALIGNMENT, Arena, Backing, Meter};
use super::extent::Extent;
use crate::{Buffer, BufferDesc, DeviceError, Heap, HeapDesc, Place, Result, Slice};

/// The memory of one device.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Tells the device's objects from those of other devices.
    device: u64,
    meter: Arc<Meter>,
}

/// What a heap is behind its handle.
struct HeapArena {
    device: u64,
    arena: Arc<Arena>,
}

/// What a buffer is behind its handle; holds its heap alive.
pub(crate) struct Region {
    device: u64,
    offset: usize,
    arena: Arc<Arena>,
}

impl Memory {
    pub(crate) fn new(budget: u64, backing: Backing) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { device: NEXT.fetch_add(1, Ordering::Relaxed), meter: Arc::new(Meter::new(budget, backing)) }
    }

    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    pub(crate) fn budget(&self) -> u64 {
        self.meter.budget
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.meter.allocated()
    }

    pub(crate) fn heap(&self, desc: &HeapDesc<'_>) -> Result<Heap> {
        let arena = Arc::new(Arena::new(&self.meter, &format!("heap '{}'", desc.label), desc.size)?);
        Ok(Heap { size: desc.size, native: Arc::new(HeapArena { device: self.device, arena }) })
    }

    pub(crate) fn buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer> {
        let &BufferDesc { label, size, place } = desc;
        let (arena, offset) = match place {
            Place::Own | Place::Staging => {
                (Arc::new(Arena::new(&self.meter, &format!("buffer '{label}'"), size)?), 0)
            }
            Place::Heap(heap, offset) => {
                let native = heap.native.downcast_ref::<HeapArena>().filter(|h| h.device == self.device);
                let Some(native) = native else {
                    return Err(DeviceError::Usage(format!(
                        "buffer '{label}': its heap is of another device"
                    )));
                };
                if offset.checked_add(size).is_none_or(|end| end > heap.size) {
                    return Err(DeviceError::Usage(format!(
                        "buffer '{label}' at {offset}+{size} leaves its heap of {} bytes",
                        heap.size
                    )));
                }
                if !offset.is_multiple_of(ALIGNMENT) {
                    return Err(DeviceError::Usage(format!(
                        "buffer '{label}': offset {offset} in its heap is not a multiple of {ALIGNMENT}; round it up"
                    )));
                }
                (native.arena.clone(), offset as usize)
            }
        };
        Ok(Buffer::new(label, size, Arc::new(Region { device: self.device, offset, arena })))
    }

    pub(crate) fn resolve(&self, slice: &Slice) -> Result<*mut u8> {
        resolve(self.device, slice)
    }
}

/// The address of a slice on a device. It is inside the buffer's arena, and good as long as the buffer lives.
pub(crate) fn resolve(device: u64, slice: &Slice) -> Result<*mut u8> {
    let region = slice.buffer.native.downcast_ref::<Region>().filter(|r| r.device == device);
    let Some(region) = region else {
        return Err(DeviceError::Usage(format!("buffer '{}' is of another device", slice.buffer.label())));
    };
    Ok(region.arena.base.wrapping_add(region.offset + slice.offset as usize))
}

/// The addresses of `size` bytes from `ptr`.
pub(crate) fn extent(ptr: *mut u8, size: u64) -> Extent {
    Extent::new(ptr.addr() as u64, size)
}
