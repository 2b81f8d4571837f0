//! Which memory stays wired: a residency set, where the system has them (macOS 15).
//!
//! - Without one the system makes buffers resident for each command buffer that binds them, and may take them out in
//!   between: the first step after a pause would pay for gigabytes of weights. Every buffer is bound directly, never
//!   through a pointer in another, so nothing more (`useResource`) is needed for correctness.
//! - It holds at most `limit` bytes. What is beyond stays as it is without a set.
#![allow(unsafe_code)]

use std::sync::Mutex;

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::{AnyClass, NSObjectProtocol, ProtocolObject};
use objc2::sel;
use objc2_metal::{MTLAllocation, MTLCommandQueue, MTLDevice, MTLResidencySet, MTLResidencySetDescriptor};

use super::native::{RawDevice, RawQueue, reason, text};
use crate::monitor::lock;

type RawSet = Retained<ProtocolObject<dyn MTLResidencySet>>;

pub(crate) struct Residency {
    wired: Mutex<Wired>,
    limit: u64,
}

struct Wired {
    set: RawSet,
    bytes: u64,
}

// SAFETY: the set is used under the mutex only, by whichever thread; nothing in Metal binds it to one.
unsafe impl Send for Wired {}

impl Residency {
    /// `None` where the system has no residency sets.
    pub(crate) fn new(device: &RawDevice, queues: [&RawQueue; 3], limit: u64) -> Option<Self> {
        let known = AnyClass::get(c"MTLResidencySetDescriptor").is_some()
            && device.respondsToSelector(sel!(newResidencySetWithDescriptor:error:))
            && queues[0].respondsToSelector(sel!(addResidencySet:));
        if !known {
            return None;
        }
        autoreleasepool(|_| {
            let descriptor = MTLResidencySetDescriptor::new();
            descriptor.setLabel(Some(&text("bessemer")));
            let made = device.newResidencySetWithDescriptor_error(&descriptor);
            let set = made.inspect_err(|error| tracing::warn!("no residency set: {}", reason(error))).ok()?;
            for queue in queues {
                queue.addResidencySet(&set);
            }
            set.requestResidency();
            Some(Self { wired: Mutex::new(Wired { set, bytes: 0 }), limit })
        })
    }

    /// Wires an allocation of `bytes`. `false` when it would be too much.
    pub(crate) fn add(&self, allocation: &ProtocolObject<dyn MTLAllocation>, bytes: u64) -> bool {
        let mut wired = lock(&self.wired);
        if wired.bytes.checked_add(bytes).is_none_or(|sum| sum > self.limit) {
            return false;
        }
        wired.bytes += bytes;
        autoreleasepool(|_| {
            wired.set.addAllocation(allocation);
            wired.set.commit();
            wired.set.requestResidency();
        });
        true
    }

    /// Takes back what [`Residency::add`] wired.
    pub(crate) fn remove(&self, allocation: &ProtocolObject<dyn MTLAllocation>, bytes: u64) {
        let mut wired = lock(&self.wired);
        wired.bytes -= bytes;
        autoreleasepool(|_| {
            wired.set.removeAllocation(allocation);
            wired.set.commit();
        });
    }
}

impl Drop for Residency {
    fn drop(&mut self) {
        let wired = lock(&self.wired);
        autoreleasepool(|_| wired.set.endResidency());
    }
}
