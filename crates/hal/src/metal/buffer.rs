//! Heaps, buffers, and where a slice lies.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use block2::RcBlock;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLAllocation, MTLBuffer, MTLDevice, MTLHazardTrackingMode, MTLHeap, MTLHeapDescriptor, MTLHeapType,
    MTLResource, MTLResourceOptions,
};

use super::core::Core;
use super::memory::Share;
use super::native::{RawBuffer, RawDevice, RawHeap, text};
use super::plan::Bound;
use super::residency::Residency;
use crate::cpu::Extent;
use crate::{Binding, Buffer, BufferDesc, DeviceError, Heap, HeapDesc, Place, Result, Slice};

/// Memory of the host that a buffer can be made of, such as a mapped file. Its bytes stay where they are as long as it
/// lives.
pub type HostMemory = dyn AsRef<[u8]> + Send + Sync;

/// Lengths whose alignment and rounding in a heap are asked for.
const PROBES: [usize; 6] = [1, 256, 4 << 10, 64 << 10, 1 << 20, 256 << 20];

/// Of memory that host and GPU see.
const SHARED: MTLResourceOptions = MTLResourceOptions(
    MTLResourceOptions::StorageModeShared.0 | MTLResourceOptions::HazardTrackingModeUntracked.0,
);

/// How buffers are made and lie in heaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) options: MTLResourceOptions,
    /// Of buffers inside a heap.
    pub(crate) alignment: u64,
    /// The host does not see them.
    pub(crate) private: bool,
    /// Sizes of heaps are multiples of it, so that a buffer at the end of one has room for its rounding.
    granule: u64,
}

impl Layout {
    pub(crate) fn new(device: &RawDevice, private: bool, page: u64) -> Self {
        let storage = match private {
            true => MTLResourceOptions::StorageModePrivate,
            false => MTLResourceOptions::StorageModeShared,
        };
        let options = storage | MTLResourceOptions::HazardTrackingModeUntracked;
        let needs = PROBES.map(|length| device.heapBufferSizeAndAlignWithLength_options(length, options));
        let alignment = needs.iter().map(|need| need.align as u64).max().unwrap_or(0).max(256);
        Self { options, alignment, private, granule: alignment.max(page) }
    }
}

/// What is bound where a slice is empty.
pub(crate) struct Filler(pub(crate) RawBuffer);

// SAFETY: buffers of Metal may be bound and released by any thread; nobody touches the bytes of this one.
unsafe impl Send for Filler {}
// SAFETY: as above.
unsafe impl Sync for Filler {}

/// Memory of the GPU, counted and perhaps wired.
struct Memory {
    share: Share,
    _wired: Option<Wired>,
}

/// An allocation in the residency set. Dropping it takes it out.
struct Wired {
    residency: Arc<Residency>,
    allocation: Retained<ProtocolObject<dyn MTLAllocation>>,
    bytes: u64,
}

// SAFETY: the allocation is a heap or a buffer, which Metal lets any thread use and release.
unsafe impl Send for Wired {}
// SAFETY: as above.
unsafe impl Sync for Wired {}

impl Memory {
    fn new(core: &Core, share: Share, allocation: Retained<ProtocolObject<dyn MTLAllocation>>) -> Arc<Self> {
        let bytes = allocation.allocatedSize() as u64;
        let residency = core.residency.as_ref().filter(|residency| residency.add(&allocation, bytes));
        let wired = residency.map(|residency| Wired { residency: residency.clone(), allocation, bytes });
        Arc::new(Self { share, _wired: wired })
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        self.residency.remove(&self.allocation, self.bytes);
    }
}

/// What a heap is behind its handle. An empty one has no object.
struct MetalHeap {
    device: u64,
    raw: Option<RawHeap>,
    memory: Option<Arc<Memory>>,
}

// SAFETY: heaps of Metal may be used and released by any thread.
unsafe impl Send for MetalHeap {}
// SAFETY: as above; making buffers in one heap from several threads is allowed.
unsafe impl Sync for MetalHeap {}

/// What a buffer is behind its handle. An empty one has no object.
pub(crate) struct MetalBuffer {
    device: u64,
    raw: Option<RawBuffer>,
    /// First of its addresses.
    address: u64,
    /// Where the host sees it; null where it does not.
    host: *mut u8,
    read_only: bool,
    /// Released after `raw`.
    _memory: Option<Arc<Memory>>,
}

// SAFETY: buffers of Metal may be bound and released by any thread. Their bytes are touched by the host through the
// ledger's table of accesses alone.
unsafe impl Send for MetalBuffer {}
// SAFETY: as above.
unsafe impl Sync for MetalBuffer {}

impl MetalBuffer {
    /// The buffer behind a slice, if it is of the device.
    pub(crate) fn of(slice: &Slice, device: u64) -> Result<Arc<Self>> {
        let native = slice.buffer.native.clone().downcast::<Self>().ok();
        native.filter(|buffer| buffer.device == device).ok_or_else(|| {
            DeviceError::Usage(format!("buffer '{}' is of another device", slice.buffer.label()))
        })
    }

    /// The object, or `filler` for an empty one.
    pub(crate) fn raw<'a>(&'a self, filler: &'a RawBuffer) -> &'a RawBuffer {
        self.raw.as_ref().unwrap_or(filler)
    }

    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn extent(&self, slice: &Slice) -> Extent {
        Extent::new(self.address + slice.offset, slice.size)
    }

    /// Where the host sees a slice of it; `None` where it does not.
    pub(crate) fn host(&self, slice: &Slice) -> Option<*mut u8> {
        (!self.host.is_null()).then(|| self.host.wrapping_add(slice.offset as usize))
    }

    /// A slice as a plan takes it.
    pub(crate) fn bound(slice: &Slice, writes: bool, device: u64) -> Result<Bound<Arc<Self>>> {
        let buffer = Self::of(slice, device)?;
        Ok(Bound {
            label: slice.buffer.label.clone(),
            offset: slice.offset,
            extent: buffer.extent(slice),
            writes,
            read_only: buffer.read_only,
            buffer,
        })
    }

    pub(crate) fn binding(binding: &Binding, device: u64) -> Result<Bound<Arc<Self>>> {
        Self::bound(&binding.slice, binding.writes(), device)
    }
}

pub(crate) fn create_heap(core: &Core, desc: &HeapDesc<'_>) -> Result<Heap> {
    core.ledger.alive()?;
    let mut native = MetalHeap { device: core.id, raw: None, memory: None };
    if desc.size > 0 {
        let what = format!("heap '{}'", desc.label);
        let share = core.meter.take(&what, desc.size)?;
        let refused = || core.meter.out_of_memory(&what, desc.size);
        let size = desc.size.checked_next_multiple_of(core.layout.granule).ok_or_else(refused)?;
        autoreleasepool(|_| {
            let descriptor = MTLHeapDescriptor::new();
            descriptor.setType(MTLHeapType::Placement);
            descriptor.setResourceOptions(core.layout.options);
            descriptor.setHazardTrackingMode(MTLHazardTrackingMode::Untracked);
            descriptor.setSize(size as usize);
            let raw = core.device.newHeapWithDescriptor(&descriptor).ok_or_else(refused)?;
            raw.setLabel(Some(&text(desc.label)));
            let allocation = ProtocolObject::from_retained(raw.clone());
            native.memory = Some(Memory::new(core, share, allocation));
            native.raw = Some(raw);
            Ok::<_, DeviceError>(())
        })?;
    }
    Ok(Heap { size: desc.size, native: Arc::new(native) })
}

pub(crate) fn create_buffer(core: &Core, desc: &BufferDesc<'_>) -> Result<Buffer> {
    core.ledger.alive()?;
    let &BufferDesc { label, size, place } = desc;
    let what = format!("buffer '{label}'");
    let max = core.device.maxBufferLength() as u64;
    if size > max {
        let what = format!("{what} (a buffer of this GPU has at most {max} bytes)");
        return Err(core.meter.out_of_memory(&what, size));
    }
    let staging = matches!(place, Place::Staging);
    let place = match place {
        Place::Heap(heap, offset) => locate(core, desc, heap, offset)?,
        Place::Own | Place::Staging => None,
    };
    if size == 0 {
        return Ok(Buffer::new(label, 0, Arc::new(empty(core))));
    }
    let refused = || core.meter.out_of_memory(&what, size);
    let (options, length) = (core.layout.options, size as usize);
    let native = autoreleasepool(|_| match place {
        Some((heap, memory, offset)) => {
            // SAFETY: offset and length lie in the heap, with room for rounding, and are aligned.
            let raw = unsafe { heap.newBufferWithLength_options_offset(length, options, offset as usize) };
            let address = memory.share.address + offset;
            Ok::<_, DeviceError>(wrap_raw(core, raw.ok_or_else(refused)?, label, address, memory))
        }
        None => {
            // Memory of the host, which is the GPU's too unless that has its own.
            let apart = staging && core.layout.private;
            let share = if apart { core.meter.uncounted(size) } else { core.meter.take(&what, size)? };
            let options = if staging { SHARED } else { options };
            let raw = core.device.newBufferWithLength_options(length, options).ok_or_else(refused)?;
            let memory = Memory::new(core, share, ProtocolObject::from_retained(raw.clone()));
            let address = memory.share.address;
            Ok(wrap_raw(core, raw, label, address, memory))
        }
    })?;
    Ok(Buffer::new(label, size, Arc::new(native)))
}

/// A buffer over memory of the host.
pub(crate) fn wrap(core: &Core, label: &str, memory: Arc<HostMemory>, page: u64) -> Result<Buffer> {
    core.ledger.alive()?;
    let bytes: &[u8] = (*memory).as_ref();
    let size = bytes.len() as u64;
    if size == 0 {
        return Ok(Buffer::new(label, 0, Arc::new(empty(core))));
    }
    let usage = |rule: String| Err(DeviceError::Usage(format!("buffer '{label}': {rule}")));
    let Some(start) =
        NonNull::new(bytes.as_ptr().cast_mut()).filter(|p| (p.addr().get() as u64).is_multiple_of(page))
    else {
        return usage(format!("the host's memory at {:p} does not begin at a page of {page} bytes", bytes));
    };
    // The rest of the last page is mapped with it, and no slice reaches there.
    let length = size.next_multiple_of(page);
    let max = core.device.maxBufferLength() as u64;
    if length > max {
        let what = format!("buffer '{label}' (a buffer of this GPU has at most {max} bytes)");
        return Err(core.meter.out_of_memory(&what, size));
    }
    let owner = memory.clone();
    // Metal keeps the block, and with it the memory, as long as the buffer is in use.
    let release = RcBlock::new(move |_: NonNull<c_void>, _: usize| {
        let _ = &owner;
    });
    let native = autoreleasepool(|_| {
        // SAFETY: the range is mapped and begins at a page; the block may be released by any thread, because the memory
        // may; nothing writes through the buffer (`read_only`).
        let raw = unsafe {
            core.device.newBufferWithBytesNoCopy_length_options_deallocator(
                start.cast(),
                length as usize,
                SHARED,
                Some(&release),
            )
        };
        let raw = raw.ok_or_else(|| core.meter.out_of_memory(&format!("buffer '{label}'"), size))?;
        let allocation = ProtocolObject::from_retained(raw.clone());
        let memory = Memory::new(core, core.meter.uncounted(size), allocation);
        let address = memory.share.address;
        let native = wrap_raw(core, raw, label, address, memory);
        Ok::<_, DeviceError>(MetalBuffer { read_only: true, ..native })
    })?;
    Ok(Buffer::new(label, size, Arc::new(native)))
}

fn empty(core: &Core) -> MetalBuffer {
    MetalBuffer {
        device: core.id,
        raw: None,
        address: 0,
        host: std::ptr::null_mut(),
        read_only: false,
        _memory: None,
    }
}

fn wrap_raw(core: &Core, raw: RawBuffer, label: &str, address: u64, memory: Arc<Memory>) -> MetalBuffer {
    raw.setLabel(Some(&text(label)));
    let private = raw.resourceOptions().contains(MTLResourceOptions::StorageModePrivate);
    let host = if private { std::ptr::null_mut() } else { raw.contents().as_ptr().cast() };
    MetalBuffer { device: core.id, raw: Some(raw), address, host, read_only: false, _memory: Some(memory) }
}

/// The heap that a buffer is placed in, when it fits there; `None` for an empty one.
fn locate<'a>(
    core: &Core,
    desc: &BufferDesc<'_>,
    heap: &'a Heap,
    offset: u64,
) -> Result<Option<(&'a RawHeap, Arc<Memory>, u64)>> {
    let (label, size) = (desc.label, desc.size);
    let usage = |rule: String| Err(DeviceError::Usage(format!("buffer '{label}'{rule}")));
    let native = heap.native.downcast_ref::<MetalHeap>().filter(|heap| heap.device == core.id);
    let Some(native) = native else { return usage(": its heap is of another device".into()) };
    if offset.checked_add(size).is_none_or(|end| end > heap.size) {
        return usage(format!(" at {offset}+{size} leaves its heap of {} bytes", heap.size));
    }
    let alignment = core.layout.alignment;
    if !offset.is_multiple_of(alignment) {
        return usage(format!(": offset {offset} in its heap is not a multiple of {alignment}; round it up"));
    }
    Ok(native.raw.as_ref().zip(native.memory.as_ref()).map(|(raw, memory)| (raw, memory.clone(), offset)))
}
