//! Memory for what stays: buffers placed one after the other in large heaps.
//!
//! Weights are hundreds of matrices of a few megabytes. Each in an allocation of its own would begin and end inside a
//! large page; side by side they fill large pages, and the reader's address translation keeps up with the memory.

use std::sync::Arc;

use bessemer_hal::{Buffer, BufferDesc, Device, Heap, HeapDesc, Place, Result};

use crate::{MemoryBudget, Owner, Reservation};

/// The first heap; each following one is twice as large, up to [`LARGEST`].
const FIRST: u64 = 4 << 20;
const LARGEST: u64 = 64 << 20;

/// Buffers that are never returned singly: a heap goes when the last buffer in it has gone.
#[derive(Debug)]
pub struct HeapStack {
    device: Arc<dyn Device>,
    top: Option<Heap>,
    used: u64,
    next: u64,
    bytes: u64,
    budget: Option<(Arc<MemoryBudget>, Owner)>,
    reservations: Vec<Reservation>,
}

impl HeapStack {
    /// An empty stack.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { device, top: None, used: 0, next: FIRST, bytes: 0, budget: None, reservations: Vec::new() }
    }

    /// An empty stack whose memory counts against a budget. The bytes stay reserved as long as the stack; whoever keeps
    /// the buffers longer takes [`HeapStack::into_reservations`].
    pub fn with_budget(device: Arc<dyn Device>, budget: Arc<MemoryBudget>, owner: Owner) -> Self {
        Self { budget: Some((budget, owner)), ..Self::new(device) }
    }

    /// Ends the stack. Its buffers stay; what they count against the budget is held by these.
    pub fn into_reservations(self) -> Vec<Reservation> {
        self.reservations
    }

    /// The share of the budget for `bytes` more.
    fn share(&self, bytes: u64) -> Result<Option<Reservation>> {
        Ok(self.budget.as_ref().map(|(budget, owner)| budget.reserve(*owner, bytes)).transpose()?)
    }

    /// Places a buffer. Contents are undefined.
    ///
    /// # Errors
    /// When the device has no memory, or the budget allows no more.
    pub fn push(&mut self, label: &str, size: u64) -> Result<Buffer> {
        self.bytes += size;
        if size > LARGEST / 2 {
            let share = self.share(size)?;
            let buffer = self.device.create_buffer(&BufferDesc::own(label, size))?;
            self.reservations.extend(share);
            return Ok(buffer);
        }
        let alignment = self.device.info().limits.alignment.max(1);
        let offset = self.used.next_multiple_of(alignment);
        if let Some(heap) = &self.top
            && offset + size <= heap.size()
        {
            self.used = offset + size;
            return self.device.create_buffer(&BufferDesc { label, size, place: Place::Heap(heap, offset) });
        }
        let share = self.share(self.next.max(size))?;
        let heap = self.device.create_heap(&HeapDesc { label: "stack", size: self.next.max(size) })?;
        self.reservations.extend(share);
        self.next = (self.next * 2).min(LARGEST);
        self.used = size;
        let buffer = self.device.create_buffer(&BufferDesc { label, size, place: Place::Heap(&heap, 0) })?;
        self.top = Some(heap);
        Ok(buffer)
    }

    /// Bytes of all buffers placed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bessemer_hal::cpu::{CpuDevice, CpuOptions};

    #[test]
    fn buffers_lie_side_by_side_and_apart() {
        let device = CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: Some(256 << 20) });
        let mut stack = HeapStack::new(device.clone());
        let buffers: Vec<_> = (0..200_u8)
            .map(|i| {
                let size = 1 + u64::from(i) * 4001;
                let buffer = stack.push("test", size).unwrap();
                device.write(&buffer.whole(), &vec![i; size as usize]).unwrap();
                buffer
            })
            .collect();
        for (i, buffer) in buffers.iter().enumerate() {
            let mut bytes = vec![0; buffer.size() as usize];
            device.read(&buffer.whole(), &mut bytes).unwrap();
            assert!(bytes.iter().all(|b| usize::from(*b) == i), "buffer {i} was overwritten");
        }
        let sum: u64 = buffers.iter().map(Buffer::size).sum();
        assert_eq!(stack.bytes(), sum);
        assert!(device.allocated() < sum + 2 * LARGEST, "{} for {sum}", device.allocated());
        drop((buffers, stack));
        assert_eq!(device.allocated(), 0, "heaps go with their last buffer");
    }

    #[test]
    fn no_memory_is_an_error_and_large_buffers_stand_alone() {
        let device = CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: Some(100 << 20) });
        let mut stack = HeapStack::new(device.clone());
        let large = stack.push("large", 90 << 20).unwrap();
        assert_eq!(device.allocated(), 90 << 20);
        assert!(stack.push("more", 20 << 20).is_err());
        drop(large);
        stack.push("more", 20 << 20).unwrap();
    }

    #[test]
    fn what_the_device_holds_is_what_the_budget_lends() {
        let device = CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: Some(150 << 20) });
        let budget = MemoryBudget::new(200 << 20);
        let mut stack = HeapStack::with_budget(device.clone(), budget.clone(), Owner::Weights);
        let mut buffers = vec![stack.push("small", 1000).unwrap(), stack.push("large", 100 << 20).unwrap()];
        assert_eq!(budget.gauges().weights, device.allocated());
        assert!(stack.push("more than the device has", 60 << 20).is_err());
        let message = stack.push("more than the budget has", 110 << 20).unwrap_err().to_string();
        assert!(message.contains("weights"), "{message}");
        assert_eq!(budget.gauges().weights, device.allocated());
        buffers.extend((0..20).map(|_| stack.push("next", 1 << 20).unwrap()));
        assert_eq!(budget.gauges().weights, device.allocated());
        let reservations = stack.into_reservations();
        assert_eq!(budget.gauges().weights, reservations.iter().map(Reservation::bytes).sum::<u64>());
        drop((buffers, reservations));
        assert_eq!((budget.gauges().used(), device.allocated()), (0, 0));
    }
}
