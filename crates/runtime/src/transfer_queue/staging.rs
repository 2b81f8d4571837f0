//! The memory of the ring, which is the host's ([`bessemer_hal::Place::Staging`]), and an event for each of its slots.
//!
//! Each slot has an event of its own, because two transfers may end in another order than they were begun in: on two queues,
//! or when one fails. One event for all would tell that the later one's value, and so the earlier one's, was reached. An
//! event that has carried a failure is replaced, so that the failure stays with the transfer it belongs to.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bessemer_hal::{Buffer, BufferDesc, Device, Event, Result, Slice};

/// Slots of staging memory.
#[derive(Debug)]
pub(super) struct Staging {
    device: Arc<dyn Device>,
    slot_bytes: u64,
    /// Made for the first transfer that needs it: where memory is unified there may be none.
    memory: OnceLock<Buffer>,
    events: Vec<Mutex<SlotEvent>>,
}

#[derive(Debug)]
struct SlotEvent {
    event: Event,
    value: u64,
    spoilt: bool,
}

impl Staging {
    /// `slots` slots of `slot_bytes` each; their memory is reserved at once where `now` says so.
    pub(super) fn new(device: &Arc<dyn Device>, slots: usize, slot_bytes: u64, now: bool) -> Result<Self> {
        let event = || {
            let event = device.create_event(0)?;
            Ok(Mutex::new(SlotEvent { event, value: 0, spoilt: false }))
        };
        let events = (0..slots).map(|_| event()).collect::<Result<_>>()?;
        let staging = Self { device: device.clone(), slot_bytes, memory: OnceLock::new(), events };
        if now {
            staging.memory()?;
        }
        Ok(staging)
    }

    fn memory(&self) -> Result<&Buffer> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        // Two threads may come here at once; the memory of the slower one is dropped.
        let size = self.slot_bytes * self.events.len() as u64;
        let made = self.device.create_buffer(&BufferDesc::staging("transfer_staging", size))?;
        Ok(self.memory.get_or_init(|| made))
    }

    /// `bytes` of a slot, from `offset` in it.
    pub(super) fn slice(&self, slot: usize, offset: u64, bytes: u64) -> Result<Slice> {
        let whole = self.memory()?.slice(slot as u64 * self.slot_bytes, self.slot_bytes)?;
        whole.slice(offset, bytes)
    }

    /// What the next submission of a slot raises.
    pub(super) fn next_value(&self, slot: usize) -> Result<(Event, u64)> {
        let Some(event) = self.events.get(slot) else {
            return Ok((self.device.create_event(0)?, 1));
        };
        let spoilt = event.lock().unwrap_or_else(PoisonError::into_inner).spoilt;
        let fresh = if spoilt { Some(self.device.create_event(0)?) } else { None };
        let mut now = event.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = fresh {
            *now = SlotEvent { event: fresh, value: 0, spoilt: false };
        }
        now.value += 1;
        Ok((now.event.clone(), now.value))
    }

    /// The event of a slot has carried a failure.
    pub(super) fn spoil(&self, slot: usize) {
        if let Some(event) = self.events.get(slot) {
            event.lock().unwrap_or_else(PoisonError::into_inner).spoilt = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use bessemer_hal::noop::NoopDevice;

    use super::*;

    fn staging(now: bool) -> (Arc<dyn Device>, Staging) {
        let device: Arc<dyn Device> = NoopDevice::new(None);
        let staging = Staging::new(&device, 3, 512, now).unwrap();
        (device, staging)
    }

    #[test]
    fn memory_is_reserved_when_it_is_needed() {
        let (device, lazy) = staging(false);
        assert_eq!(device.allocated(), 0);
        lazy.slice(0, 0, 1).unwrap();
        assert!(device.allocated() >= 1536);
        assert!(staging(true).0.allocated() >= 1536);
    }

    #[test]
    fn slots_are_apart_and_slices_stay_inside() {
        let (_device, staging) = staging(true);
        let slots: Vec<_> = (0..3).map(|slot| staging.slice(slot, 0, 512).unwrap()).collect();
        for (i, slot) in slots.iter().enumerate() {
            assert!(slots.iter().skip(i + 1).all(|other| !slot.overlaps(other)));
        }
        assert_eq!(staging.slice(1, 256, 100).unwrap().offset(), 768);
        assert!(staging.slice(1, 256, 257).is_err());
        assert!(staging.slice(3, 0, 1).is_err());
    }

    #[test]
    fn a_spoilt_event_is_replaced_and_others_are_not() {
        let (_device, staging) = staging(false);
        let (first, value) = staging.next_value(1).unwrap();
        assert_eq!((value, staging.next_value(1).unwrap().1), (1, 2));
        staging.spoil(1);
        let (fresh, value) = staging.next_value(1).unwrap();
        assert_eq!((value, staging.next_value(1).unwrap().1), (1, 2));
        first.signal(7);
        assert_eq!(fresh.value().unwrap(), 0, "it is another event");
        staging.spoil(1);
        assert_eq!(staging.next_value(0).unwrap().1, 1);
        assert_eq!(staging.next_value(0).unwrap().1, 2);
    }
}
