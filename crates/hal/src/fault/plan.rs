//! What can go wrong, in which calls, and how often it is to.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{DeviceError, Result};

/// A thing that can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// [`crate::Device::create_heap`] answers [`DeviceError::OutOfMemory`].
    HeapMemory,
    /// [`crate::Device::create_buffer`] answers [`DeviceError::OutOfMemory`].
    BufferMemory,
    /// [`crate::Device::create_encoder`] answers [`DeviceError::OutOfMemory`].
    EncoderMemory,
    /// [`crate::Encoder::finish`] answers [`DeviceError::OutOfMemory`]; the recording is gone.
    FinishMemory,
    /// [`crate::Device::write`] answers [`DeviceError::Submission`] and writes nothing.
    WriteFailure,
    /// [`crate::Device::write`] succeeds, and one to four bytes that lie together arrive changed.
    WriteCorruption,
    /// [`crate::Device::read`] answers [`DeviceError::Submission`] and reads nothing.
    ReadFailure,
    /// A submission to the transfer queue, and all behind it, starts late by up to [`FaultPlan::with_delay`].
    TransferDelay,
    /// A submission to the transfer queue succeeds, with noise over up to 16 bytes that lie together in what one of its
    /// copies brought: commands behind that copy see it. Only submissions with a copy meet it.
    TransferCorruption,
    /// A submission starts late by [`FaultPlan::with_timeout`]: waits that are shorter run out of time. It succeeds later.
    SubmissionTimeout,
    /// A submission fails with [`DeviceError::Submission`] without having run.
    FailureBefore,
    /// A submission runs, and fails with [`DeviceError::Submission`] then.
    FailureAfter,
    /// The device is lost in the call, for good.
    DeviceLoss,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 13] = [
        Self::HeapMemory,
        Self::BufferMemory,
        Self::EncoderMemory,
        Self::FinishMemory,
        Self::WriteFailure,
        Self::WriteCorruption,
        Self::ReadFailure,
        Self::TransferDelay,
        Self::TransferCorruption,
        Self::SubmissionTimeout,
        Self::FailureBefore,
        Self::FailureAfter,
        Self::DeviceLoss,
    ];

    /// As it is written and printed: `transfer-delay`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeapMemory => "heap-memory",
            Self::BufferMemory => "buffer-memory",
            Self::EncoderMemory => "encoder-memory",
            Self::FinishMemory => "finish-memory",
            Self::WriteFailure => "write-failure",
            Self::WriteCorruption => "write-corruption",
            Self::ReadFailure => "read-failure",
            Self::TransferDelay => "transfer-delay",
            Self::TransferCorruption => "transfer-corruption",
            Self::SubmissionTimeout => "submission-timeout",
            Self::FailureBefore => "failure-before",
            Self::FailureAfter => "failure-after",
            Self::DeviceLoss => "device-loss",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            DeviceError::Usage(format!("fault '{text}' is not known; write one of {names}"))
        })
    }
}

/// A call that can meet a fault; calls are counted and drawn for by these kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`crate::Device::create_heap`].
    CreateHeap,
    /// [`crate::Device::create_buffer`].
    CreateBuffer,
    /// [`crate::Device::create_pipeline`].
    CreatePipeline,
    /// [`crate::Device::create_event`].
    CreateEvent,
    /// [`crate::Device::create_encoder`].
    CreateEncoder,
    /// [`crate::Encoder::finish`].
    Finish,
    /// [`crate::Device::submit`] to the compute queue.
    SubmitCompute,
    /// [`crate::Device::submit`] to the transfer queue.
    SubmitTransfer,
    /// [`crate::Device::write`].
    Write,
    /// [`crate::Device::read`].
    Read,
}

impl Call {
    /// Every kind of call.
    pub const ALL: [Self; 10] = [
        Self::CreateHeap,
        Self::CreateBuffer,
        Self::CreatePipeline,
        Self::CreateEvent,
        Self::CreateEncoder,
        Self::Finish,
        Self::SubmitCompute,
        Self::SubmitTransfer,
        Self::Write,
        Self::Read,
    ];

    /// What it can meet, in the order in which the schedule looks.
    pub fn faults(self) -> &'static [Fault] {
        use Fault::*;
        match self {
            Self::CreateHeap => &[HeapMemory, DeviceLoss],
            Self::CreateBuffer => &[BufferMemory, DeviceLoss],
            Self::CreatePipeline | Self::CreateEvent => &[DeviceLoss],
            Self::CreateEncoder => &[EncoderMemory, DeviceLoss],
            Self::Finish => &[FinishMemory, DeviceLoss],
            Self::SubmitCompute => &[FailureBefore, FailureAfter, SubmissionTimeout, DeviceLoss],
            Self::SubmitTransfer => &[
                FailureBefore,
                FailureAfter,
                SubmissionTimeout,
                TransferDelay,
                TransferCorruption,
                DeviceLoss,
            ],
            Self::Write => &[WriteFailure, WriteCorruption, DeviceLoss],
            Self::Read => &[ReadFailure, DeviceLoss],
        }
    }
}

/// How long a submission is held back at most, whatever the plan says.
const LONGEST: Duration = Duration::from_secs(600);

/// How often each fault is to happen. A new plan has none.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    seed: u64,
    rates: [f64; Fault::ALL.len()],
    delay: Duration,
    timeout: Duration,
}

impl FaultPlan {
    /// A plan by which nothing fails: delays of up to 20 ms and timeouts of one second, once they have a rate.
    pub fn new(seed: u64) -> Self {
        let (delay, timeout) = (Duration::from_millis(20), Duration::from_secs(1));
        Self { seed, rates: [0.0; Fault::ALL.len()], delay, timeout }
    }

    /// Every fault at `rate`, except [`Fault::DeviceLoss`], after which there would be no other.
    pub fn everything(seed: u64, rate: f64) -> Self {
        let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::DeviceLoss);
        faults.fold(Self::new(seed), |plan, fault| plan.with(fault, rate))
    }

    /// With `fault` in this share of the calls that can meet it, from 0 (never) to 1 (always); what lies outside is taken
    /// as the nearer of these. Where the rates of one call's faults exceed 1 together, the first in [`Call::faults`] go
    /// first.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: f64) -> Self {
        self.rates[fault as usize] = if rate > 0.0 { rate.min(1.0) } else { 0.0 };
        self
    }

    /// With [`Fault::TransferDelay`] of up to `delay`, ten minutes at most.
    #[must_use]
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay: delay.min(LONGEST), ..self }
    }

    /// With [`Fault::SubmissionTimeout`] of `timeout`, ten minutes at most.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(LONGEST), ..self }
    }

    /// What the schedule is a function of.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The share of calls that meet `fault`.
    pub fn rate(&self, fault: Fault) -> f64 {
        self.rates[fault as usize]
    }

    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault.to_string().parse(), Ok(fault));
            assert_eq!(fault as usize, index);
        }
        let message = "gremlins".parse::<Fault>().unwrap_err().to_string();
        assert!(message.contains("'gremlins'") && message.contains("transfer-delay"), "{message}");
    }

    #[test]
    fn every_fault_is_met_by_a_call_and_every_call_can_lose_the_device() {
        for fault in Fault::ALL {
            assert!(Call::ALL.iter().any(|call| call.faults().contains(&fault)), "{fault}");
        }
        for (index, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, index);
            assert_eq!(call.faults().last(), Some(&Fault::DeviceLoss));
        }
    }

    #[test]
    fn a_plan_takes_any_number() {
        let rate = |rate| FaultPlan::new(0).with(Fault::ReadFailure, rate).rate(Fault::ReadFailure);
        assert_eq!([f64::NAN, -1.0, 0.25, 7.0, f64::INFINITY].map(rate), [0.0, 0.0, 0.25, 1.0, 1.0]);
        let plan = FaultPlan::everything(3, 0.5).with_delay(Duration::MAX).with_timeout(Duration::MAX);
        assert_eq!((plan.seed(), plan.delay(), plan.timeout()), (3, LONGEST, LONGEST));
        assert_eq!((plan.rate(Fault::FailureAfter), plan.rate(Fault::DeviceLoss)), (0.5, 0.0));
    }
}
