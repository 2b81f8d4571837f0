//! A queue of Metal, the timeline that orders its command buffers, and the fence that orders their encoders.

use objc2_metal::{MTLCommandQueue, MTLDevice, MTLEvent, MTLFence, MTLSharedEvent};

use super::ledger::MAX_TICKS;
use super::native::{RawDevice, RawEvent, RawFence, RawQueue, text};
use crate::{DeviceError, Result};

pub(crate) struct Queue {
    pub(crate) raw: RawQueue,
    /// Stands at the number of command buffers that have ended. Shared with the host, which raises it for those that
    /// failed.
    pub(crate) timeline: RawEvent,
    /// Command buffers do not overlap, so that one fence serves them all.
    pub(crate) fence: RawFence,
}

impl Queue {
    pub(crate) fn new(device: &RawDevice, name: &str) -> Result<Self> {
        let label = text(&format!("bessemer {name}"));
        let missing =
            |what: &str| DeviceError::Unavailable(format!("Metal gives no {what} for the {name} queue"));
        let raw = device.newCommandQueueWithMaxCommandBufferCount(2 * MAX_TICKS as usize);
        let raw = raw.ok_or_else(|| missing("command queue"))?;
        raw.setLabel(Some(&label));
        let timeline = device.newSharedEvent().ok_or_else(|| missing("shared event"))?;
        timeline.setLabel(Some(&label));
        let fence = device.newFence().ok_or_else(|| missing("fence"))?;
        fence.setLabel(Some(&label));
        Ok(Self { raw, timeline, fence })
    }

    /// Raises the timeline to `tick` unless it stands there already.
    pub(crate) fn raise(&self, tick: u64) {
        if self.timeline.signaledValue() < tick {
            self.timeline.setSignaledValue(tick);
        }
    }
}
