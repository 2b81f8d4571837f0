//! Events: which points of which timelines raise a counter.
//!
//! An event is a table on the host. A value is *reached*, *promised* by a submission that the GPU has and that ends by
//! itself, *failed*, or *unknown*; only an unknown value keeps a submission on the host.
//!
//! A submission can fail only before the GPU has it, or with the whole device. So failures are known on the host in time,
//! and no wait on the GPU needs to be broken off: a submission that waits for a failed value fails unexecuted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use crate::event::EventState;
use crate::monitor::Monitor;
use crate::{DeviceError, Event, Result};

/// How long a wait goes without looking whether the value came by another way, or the device was lost.
const SLICE: Duration = Duration::from_millis(5);

pub(crate) struct VulkanEvent {
    core: Arc<Core>,
    standing: Monitor<Standing>,
}

struct Standing {
    value: u64,
    promises: Vec<Promise>,
    failed: Option<Failed>,
}

/// `value` is reached when the lane's timeline has come to `point`.
#[derive(Clone, Copy)]
struct Promise {
    value: u64,
    lane: usize,
    point: u64,
}

/// Values in `(after, through]` will never be reached.
struct Failed {
    after: u64,
    through: u64,
    error: DeviceError,
}

/// What can be said of a value.
pub(crate) enum Outlook {
    Reached,
    /// By a lane's timeline at a point.
    Promised(usize, u64),
    Failed(DeviceError),
    Unknown,
}

impl Standing {
    /// Takes over what the timelines have come to, as far as is known.
    fn settle(&mut self, core: &Core) {
        let value = &mut self.value;
        self.promises.retain(|p| {
            let reached = core.lanes[p.lane].completed.load(std::sync::atomic::Ordering::Acquire) >= p.point;
            if reached {
                *value = p.value.max(*value);
            }
            !reached
        });
    }

    fn outlook(&self, value: u64) -> Outlook {
        if let Some(failed) = self.failed.as_ref().filter(|f| f.after < value && value <= f.through) {
            return Outlook::Failed(failed.error.clone());
        }
        if self.value >= value {
            return Outlook::Reached;
        }
        // Of several, the one with the smallest value was most likely promised first.
        let promise = self.promises.iter().filter(|p| p.value >= value).min_by_key(|p| p.value);
        promise.map_or(Outlook::Unknown, |p| Outlook::Promised(p.lane, p.point))
    }
}

impl VulkanEvent {
    pub(crate) fn event(core: &Arc<Core>, initial: u64) -> Event {
        let standing = Standing { value: initial, promises: Vec::new(), failed: None };
        Event { state: Arc::new(Self { core: core.clone(), standing: Monitor::new(standing) }) }
    }

    /// The event behind a handle, if it is of this device.
    pub(crate) fn of(event: &Event, core: &Core) -> Option<Arc<Self>> {
        let any: Arc<dyn std::any::Any + Send + Sync> = event.state.clone();
        any.downcast::<Self>().ok().filter(|event| event.core.id == core.id)
    }

    pub(crate) fn outlook(&self, value: u64) -> Outlook {
        self.standing.look(|now| now.outlook(value))
    }

    /// The GPU has taken a submission that raises it.
    pub(crate) fn promise(&self, value: u64, lane: usize, point: u64) {
        self.standing.update(|now| {
            now.settle(&self.core);
            if value > now.value {
                now.promises.push(Promise { value, lane, point });
            }
        });
    }

    /// Asks the GPU about every timeline that a promise is on.
    fn settle(&self) -> Result<()> {
        let lanes = self.standing.look(|now| {
            now.promises.iter().fold([false; 3], |mut lanes, p| {
                lanes[p.lane] = true;
                lanes
            })
        });
        for (lane, _) in lanes.iter().enumerate().filter(|(_, asked)| **asked) {
            self.core.refresh(lane)?;
        }
        if lanes.contains(&true) {
            self.standing.update(|now| now.settle(&self.core));
        }
        Ok(())
    }
}

impl EventState for VulkanEvent {
    fn value(&self) -> Result<u64> {
        self.core.alive()?;
        self.settle()?;
        self.standing.look(|now| match &now.failed {
            Some(failed) if now.value < failed.through => Err(failed.error.clone()),
            _ => Ok(now.value),
        })
    }

    fn wait(&self, value: u64, timeout: Duration) -> Result<bool> {
        let begin = Instant::now();
        loop {
            // What was reached stays so, even when the device is lost later.
            let settled = self.settle();
            let outlook = self.outlook(value);
            let promise = match outlook {
                Outlook::Reached => return Ok(true),
                Outlook::Failed(error) => return Err(error),
                Outlook::Promised(lane, point) => Some((lane, point)),
                Outlook::Unknown => None,
            };
            settled.and_then(|()| self.core.alive())?;
            let left = timeout.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            let left = left.min(SLICE);
            if let Some((lane, point)) = promise {
                self.core.wait_for(lane, point, left)?;
            } else {
                let changed = |now: &Standing| match now.outlook(value) {
                    Outlook::Unknown => None,
                    _ => Some(()),
                };
                self.standing.wait(left, changed);
            }
        }
    }

    fn signal(&self, value: u64) {
        self.standing.update(|now| now.value = now.value.max(value));
        self.core.ledger.pump(&self.core);
    }

    fn fail(&self, value: u64, error: DeviceError) {
        self.fail_value(value, error);
        self.core.ledger.pump(&self.core);
    }
}

impl VulkanEvent {
    /// Fails the values up to `value`, without looking what waits for them.
    pub(crate) fn fail_value(&self, value: u64, error: DeviceError) {
        self.standing.update(|now| {
            now.settle(&self.core);
            // What is promised will be reached.
            let sure = now.promises.iter().map(|p| p.value).fold(now.value, u64::max);
            if value > sure {
                let after = now.failed.as_ref().map_or(sure, |failed| failed.after);
                let through = now.failed.as_ref().map_or(value, |failed| failed.through.max(value));
                now.failed = Some(Failed { after, through, error });
            }
        });
    }
}
