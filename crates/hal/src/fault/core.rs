//! What the parts of a fault device share: the schedule, the loss, and what is under way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::INJECTED;
use super::plan::{Call, Fault};
use super::schedule::{Injection, Schedule};
use super::submission::FaultSubmission;
use crate::monitor::lock;
use crate::{DeviceError, Event, QueueKind, Result};

/// How long the ends of submissions may lag behind the events that they raise, when the device is lost between: as long as
/// a busy system may keep the thread of a queue off its cores.
const LAG: Duration = Duration::from_secs(1);

pub(crate) struct Core {
    pub(crate) schedule: Mutex<Schedule>,
    lost: OnceLock<String>,
    /// Set when it is known what had ended before the loss, a moment after it.
    over: OnceLock<DeviceError>,
    /// By queue; `None` after the loss. Bounded by what the device inside holds, since each submission looks for the end of
    /// the oldest.
    under_way: Mutex<Option<[VecDeque<UnderWay>; 2]>>,
}

/// A submission that may still fail.
pub(crate) struct UnderWay {
    pub(crate) submission: Arc<FaultSubmission>,
    /// What it waits for, as the device inside knows it.
    pub(crate) wait: Vec<(Event, u64)>,
}

impl UnderWay {
    /// Fails the values that it waits for, so that the device inside ends it.
    fn unblock(&self, error: &DeviceError) {
        for (event, value) in &self.wait {
            // What failed before keeps its error.
            if event.state.wait(*value, Duration::ZERO) == Ok(false) {
                event.state.fail(*value, error.clone());
            }
        }
    }
}

impl Core {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            schedule: Mutex::new(Schedule::new()),
            lost: OnceLock::new(),
            over: OnceLock::new(),
            under_way: Mutex::new(Some(Default::default())),
        })
    }

    /// # Errors
    /// [`DeviceError::Lost`] once the device is gone.
    pub(crate) fn alive(&self) -> Result<()> {
        self.lost.get().map_or(Ok(()), |reason| Err(DeviceError::Lost(reason.clone())))
    }

    /// Once the device is gone and it is known what had ended before.
    pub(crate) fn over(&self) -> Option<&DeviceError> {
        self.over.get()
    }

    /// What a call meets among the faults that it can; the device may be lost in it.
    pub(crate) fn meet(&self, call: Call, can: impl Fn(Fault) -> bool) -> Result<Option<Injection>> {
        self.alive()?;
        let injection = lock(&self.schedule).meet(call, can);
        if injection.as_ref().is_some_and(|injection| injection.fault == Fault::DeviceLoss) {
            return Err(self.lose(&format!("{INJECTED} in {call:?}")));
        }
        Ok(injection)
    }

    /// A fault has been injected.
    pub(crate) fn count(&self, fault: Fault) {
        tracing::debug!("{INJECTED}: {fault}");
        lock(&self.schedule).statistics.count_fault(fault);
    }

    /// From now on the device is gone, and so is all that is under way.
    pub(crate) fn lose(&self, reason: &str) -> DeviceError {
        let mut first = false;
        let reason = self.lost.get_or_init(|| {
            first = true;
            reason.to_owned()
        });
        let error = DeviceError::Lost(reason.clone());
        if first {
            self.count(Fault::DeviceLoss);
            self.end_all(&error);
            self.over.get_or_init(|| error.clone());
        }
        error
    }

    /// Remembers a submission until it has ended.
    pub(crate) fn track(&self, queue: QueueKind, under_way: UnderWay) {
        let mut ended = Vec::new();
        let late = match &mut *lock(&self.under_way) {
            Some(all) => {
                let queue = &mut all[queue as usize];
                while queue.front().is_some_and(|oldest| oldest.submission.outcome().is_some()) {
                    ended.extend(queue.pop_front());
                }
                queue.push_back(under_way);
                None
            }
            None => Some(under_way),
        };
        // What ended may be the last to hold an event, which goes outside of the lock.
        drop(ended);
        if let (Some(late), Err(error)) = (late, self.alive()) {
            // The loss came while it was submitted: too late to be counted among what had ended.
            late.submission.fail(&error);
            late.unblock(&error);
        }
    }

    /// Forgets what is under way, which the device inside ends.
    pub(crate) fn forget(&self) {
        let all = lock(&self.under_way).take();
        drop(all);
    }

    /// Fails what has not ended. Then nothing waits any more inside, so that the device there ends it too.
    fn end_all(&self, error: &DeviceError) {
        let all = lock(&self.under_way).take();
        let all = || all.iter().flatten().flatten();
        // Again until nothing more has ended: what one that has ended waited for had ended before, perhaps after it was
        // looked at.
        let mut pending: Vec<_> = all().map(|under_way| &under_way.submission).collect();
        let deadline = Instant::now() + LAG;
        loop {
            let before = pending.len();
            pending.retain(|submission| !submission.settle(deadline));
            if pending.len() == before {
                break;
            }
        }
        pending.iter().for_each(|submission| submission.fail(error));
        all().for_each(|under_way| under_way.unblock(error));
    }
}
