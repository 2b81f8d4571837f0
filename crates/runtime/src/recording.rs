//! A recorded step, which can be submitted more than once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bessemer_hal::{CommandBuffer, DeviceError, Result};

use crate::recorder::Borrowed;
use crate::step_data::PlacedData;
use crate::step_transfers::Arrival;
use crate::{Runtime, StepData};

/// Commands, the transient memory that they work in, and the place of their data. What is recorded depends on shapes
/// alone, so a step of the same shape needs new data and no new recording.
pub struct Recording {
    pub(crate) label: String,
    /// Submitted one after the other; at least one.
    pub(crate) parts: Vec<Part>,
    pub(crate) data: Option<PlacedData>,
    /// Returns to the pool when the recording is dropped and the device is done with it.
    pub(crate) borrowed: Borrowed,
    /// The data of the next submission, while it is on its way.
    pub(crate) arrival: Mutex<Option<Arrival>>,
    pub(crate) submitted: AtomicBool,
}

/// A command buffer of a recording.
pub(crate) struct Part {
    /// The kernel, when the step is profiled.
    pub(crate) name: &'static str,
    pub(crate) commands: CommandBuffer,
}

impl Recording {
    /// Bytes of transient memory that it holds.
    pub fn bytes(&self) -> u64 {
        self.borrowed.buffers.iter().map(|buffer| buffer.size()).sum()
    }

    /// Gives the next submission its data. No submission of this recording may be under way.
    ///
    /// # Errors
    /// [`DeviceError::Usage`] when the layout is not the one that was recorded, or the recording is in use.
    pub fn write(&self, runtime: &Runtime, data: &StepData) -> Result<()> {
        match &self.data {
            Some(placed) if placed.fields == data.layout() => {
                let arrival = runtime.upload(&placed.whole, data.bytes())?;
                *self.arrival.lock().unwrap_or_else(PoisonError::into_inner) = arrival;
                Ok(())
            }
            _ => Err(DeviceError::Usage(format!(
                "the data of step '{}' has another layout than the recording: record it again",
                self.label
            ))),
        }
    }

    pub(crate) fn take_arrival(&self) -> Option<Arrival> {
        self.arrival.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it was submitted before; it is now.
    pub(crate) fn count_submission(&self) -> bool {
        self.submitted.swap(true, Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("label", &self.label).finish_non_exhaustive()
    }
}
