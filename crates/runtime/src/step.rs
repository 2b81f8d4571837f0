//! A step under way.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::{Device, DeviceError, Result, Slice, Submission, Timing};
use bytemuck::AnyBitPattern;

use crate::recorder::Borrowed;

/// How long a dropped step is waited for before its memory is given up instead of being lent again.
const DROP_TIMEOUT: Duration = Duration::from_secs(30);

/// A submitted step. Its transient memory returns to the workspace when it is dropped, but not before the device is
/// done with it.
pub struct Step {
    device: Arc<dyn Device>,
    submission: Submission,
    borrowed: Option<Borrowed>,
}

impl Step {
    pub(crate) fn new(device: Arc<dyn Device>, submission: Submission, borrowed: Borrowed) -> Self {
        Self { device, submission, borrowed: Some(borrowed) }
    }

    /// Waits until the device is done.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`], or how the step failed.
    pub fn wait(&self, timeout: Duration) -> Result<Timing> {
        self.submission.wait(timeout)
    }

    /// Reads a result of the completed step.
    ///
    /// # Errors
    /// The step's own failure, or [`DeviceError::Usage`] while it runs and when the slice holds no whole number of
    /// elements.
    pub fn read<T: AnyBitPattern + bytemuck::NoUninit>(&self, slice: &Slice) -> Result<Vec<T>> {
        match self.submission.poll() {
            None => return Err(DeviceError::Usage("a step is read after it has completed".into())),
            Some(outcome) => outcome?,
        };
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
        if let Err(DeviceError::Timeout { .. }) = self.submission.wait(DROP_TIMEOUT) {
            tracing::error!("a step was still running when it was dropped: its memory is not lent again");
            // The device may still write it; the submission keeps the buffers alive, the workspace forgets them.
            std::mem::forget(self.borrowed.take());
        }
    }
}
