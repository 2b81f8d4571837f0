//! A step under way.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::{Device, DeviceError, Event, Result, Slice, Submission, Timing};
use bytemuck::AnyBitPattern;

use crate::{Profile, Recording};

/// A submitted step. It holds its recording; when both are dropped, the transient memory returns once the device is done
/// with it.
#[derive(Debug)]
pub struct Step {
    device: Arc<dyn Device>,
    /// One for each part of the recording; they complete in order.
    submissions: Vec<Submission>,
    reached: (Event, u64),
    recording: Arc<Recording>,
}

impl Step {
    pub(crate) fn new(
        device: Arc<dyn Device>,
        submissions: Vec<Submission>,
        reached: (Event, u64),
        recording: Arc<Recording>,
    ) -> Self {
        Self { device, submissions, reached, recording }
    }

    /// What the device raises when it is done.
    pub fn reached(&self) -> (Event, u64) {
        self.reached.clone()
    }

    /// Whether the device is done, well or not.
    pub fn is_done(&self) -> bool {
        self.submissions.iter().all(|submission| submission.poll().is_some())
    }

    /// When each part ran, as far as they have completed.
    pub(crate) fn timings(&self) -> impl Iterator<Item = Timing> {
        self.submissions.iter().filter_map(|submission| submission.poll()?.ok())
    }

    /// Waits until the device is done.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`], or how the step failed.
    pub fn wait(&self, timeout: Duration) -> Result<Timing> {
        let mut whole: Option<Timing> = None;
        for submission in &self.submissions {
            let timing = submission.wait(timeout)?;
            let start_ns = whole.map_or(timing.start_ns, |whole| whole.start_ns);
            whole = Some(Timing { start_ns, end_ns: timing.end_ns });
        }
        whole.ok_or_else(|| DeviceError::Usage("a step without command buffers".into()))
    }

    /// Adds what each kernel took to `profile`; for a completed step that was recorded with one.
    pub(crate) fn tell(&self, profile: &Profile) {
        for (part, submission) in self.recording.parts.iter().zip(&self.submissions) {
            if let Some(Ok(timing)) = submission.poll() {
                profile.add(part.name, timing);
            }
        }
    }

    /// Reads a result of the completed step.
    ///
    /// # Errors
    /// The step's own failure, or [`DeviceError::Usage`] while it runs and when the slice holds no whole number of
    /// elements.
    pub fn read<T: AnyBitPattern + bytemuck::NoUninit>(&self, slice: &Slice) -> Result<Vec<T>> {
        for submission in &self.submissions {
            match submission.poll() {
                None => return Err(DeviceError::Usage("a step is read after it has completed".into())),
                Some(outcome) => outcome?,
            };
        }
        let bytes = slice.size() as usize;
        if !bytes.is_multiple_of(size_of::<T>()) {
            return Err(DeviceError::Usage(format!(
                "{bytes} bytes are no whole number of {}-byte elements",
                size_of::<T>()
            )));
        }
        let mut out = vec![T::zeroed(); bytes / size_of::<T>()];
        self.device.read(slice, bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }
}
