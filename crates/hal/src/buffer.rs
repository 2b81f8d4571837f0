//! Heaps, buffers, and slices of buffers.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{DeviceError, Result};

/// What [`crate::Device::create_heap`] needs.
#[derive(Clone, Copy, Debug)]
pub struct HeapDesc<'a> {
    /// For reports and errors.
    pub label: &'a str,
    /// Bytes.
    pub size: u64,
}

/// What [`crate::Device::create_buffer`] needs.
#[derive(Clone, Copy, Debug)]
pub struct BufferDesc<'a> {
    /// For reports and errors.
    pub label: &'a str,
    /// Bytes; zero is allowed.
    pub size: u64,
    /// Where it lies.
    pub place: Place<'a>,
}

/// Where a buffer lies.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In device memory of its own.
    Own,
    /// In a heap, from this offset on.
    Heap(&'a Heap, u64),
    /// In memory of the host's that the device copies from and to, and that the host reads and writes at its full speed,
    /// whatever [`crate::Limits::mapped`] says. Kernels may use it, across the device's bus. It counts in
    /// [`crate::Device::allocated`] and against the budget only where that is the same memory as the device's.
    Staging,
}

impl<'a> BufferDesc<'a> {
    /// A buffer with device memory of its own.
    pub fn own(label: &'a str, size: u64) -> Self {
        Self { label, size, place: Place::Own }
    }

    /// A buffer that bytes go through on their way between host and device.
    pub fn staging(label: &'a str, size: u64) -> Self {
        Self { label, size, place: Place::Staging }
    }
}

/// Memory reserved in one piece. Lives as long as the last buffer placed in it.
#[derive(Clone)]
pub struct Heap {
    pub(crate) size: u64,
    pub(crate) native: Arc<dyn Any + Send + Sync>,
}

impl Heap {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").field("size", &self.size).finish()
    }
}

/// A range of memory that the device uses. Cloning shares it; the memory returns when the last clone is gone and no submission
/// uses it any more.
#[derive(Clone)]
pub struct Buffer {
    pub(crate) id: u64,
    pub(crate) label: Arc<str>,
    pub(crate) size: u64,
    pub(crate) native: Arc<dyn Any + Send + Sync>,
}

impl Buffer {
    pub(crate) fn new(label: &str, size: u64, native: Arc<dyn Any + Send + Sync>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), label: label.into(), size, native }
    }

    /// Identity within this process: equal for clones, different otherwise.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The label it was created with.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The whole buffer.
    pub fn whole(&self) -> Slice {
        Slice { buffer: self.clone(), offset: 0, size: self.size }
    }

    /// `size` bytes from `offset`.
    ///
    /// # Errors
    /// [`DeviceError::Usage`] when the range leaves the buffer.
    pub fn slice(&self, offset: u64, size: u64) -> Result<Slice> {
        if offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(DeviceError::Usage(format!(
                "slice {offset}+{size} leaves buffer '{}' of {} bytes",
                self.label, self.size
            )));
        }
        Ok(Slice { buffer: self.clone(), offset, size })
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer#{}({}, {} B)", self.id, self.label, self.size)
    }
}

/// A byte range of a buffer; always inside it.
#[derive(Clone, Debug)]
pub struct Slice {
    pub(crate) buffer: Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Slice {
    /// The buffer.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// First byte, counted from the start of the buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `size` bytes from `offset`, counted from the start of this slice.
    ///
    /// # Errors
    /// [`DeviceError::Usage`] when the range leaves the slice.
    pub fn slice(&self, offset: u64, size: u64) -> Result<Slice> {
        if offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(DeviceError::Usage(format!(
                "slice {offset}+{size} leaves a slice of {} bytes of buffer '{}'",
                self.size, self.buffer.label
            )));
        }
        Ok(Slice { buffer: self.buffer.clone(), offset: self.offset + offset, size })
    }

    /// Whether both lie in one buffer and share a byte.
    pub fn overlaps(&self, other: &Slice) -> bool {
        self.buffer.id == other.buffer.id
            && self.offset.max(other.offset) < (self.offset + self.size).min(other.offset + other.size)
    }
}
