//! Where the time of steps goes, kernel by kernel.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bessemer_hal::Timing;

/// Time on the device by kernel. A profiled step runs every launch in a command buffer of its own, so that the device's
/// clock tells each: the sum is longer than the step would take in one piece.
#[derive(Debug, Default)]
pub struct Profile {
    kernels: Mutex<BTreeMap<&'static str, KernelTime>>,
}

/// What one kernel took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelTime {
    /// Launches.
    pub launches: u64,
    /// From the start to the end of each on the device, added up.
    pub nanos: u64,
}

impl Profile {
    pub(crate) fn add(&self, kernel: &'static str, timing: Timing) {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let time = kernels.entry(kernel).or_default();
        time.launches += 1;
        time.nanos += timing.end_ns.saturating_sub(timing.start_ns);
    }

    /// Everything since the last call, by name; starts anew.
    pub fn take(&self) -> BTreeMap<&'static str, KernelTime> {
        std::mem::take(&mut self.kernels.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
