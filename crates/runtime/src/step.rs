//! A step under way.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::{Device, DeviceError, Result, Slice, Submission, Timing};
use bytemuck::AnyBitPattern;

use crate::{Profile, Recording};

/// How long a dropped step is waited for before its memory is given up instead of being lent again.
const DROP_TIMEOUT: Duration = Duration::from_secs(30);

/// A submitted step. It holds its recording, with the transient memory, until the device is done with it.
#[derive(Debug)]
pub struct Step {
    device: Arc<dyn Device>,
    /// One for each part of the recording; they complete in order.
    submissions: Vec<Submission>,
    recording: Option<Arc<Recording>>,
}

impl Step {
    pub(crate) fn new(
        device: Arc<dyn Device>,
        submissions: Vec<Submission>,
        recording: Arc<Recording>,
    ) -> Self {
        Self { device, submissions, recording: Some(recording) }
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
        for (part, submission) in self.recording.iter().flat_map(|r| &r.parts).zip(&self.submissions) {
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

impl Drop for Step {
    fn drop(&mut self) {
        if let Err(DeviceError::Timeout { .. }) = self.wait(DROP_TIMEOUT) {
            tracing::error!("a step was still running when it was dropped: its memory is not lent again");
            // The device may still write it; the submission keeps the buffers alive, the workspace forgets them.
            std::mem::forget(self.recording.take());
        }
    }
}
