//! What was called, and what was made to go wrong.

use std::fmt;

use super::plan::{Call, Fault};

/// Counts since the device was made, whether armed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultStatistics {
    calls: [u64; Call::ALL.len()],
    faults: [u64; Fault::ALL.len()],
}

impl FaultStatistics {
    /// Calls of a kind, before the device was lost.
    pub fn calls(&self, call: Call) -> u64 {
        self.calls[call as usize]
    }

    /// How often a fault was injected.
    pub fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// Calls of all kinds.
    pub fn all_calls(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// Faults of all kinds.
    pub fn all_faults(&self) -> u64 {
        self.faults.iter().sum()
    }

    pub(crate) fn count_call(&mut self, call: Call) {
        self.calls[call as usize] += 1;
    }

    pub(crate) fn count_fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }
}

impl fmt::Display for FaultStatistics {
    /// `4 faults in 310 calls: transfer-delay 3, device-loss 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults in {} calls", self.all_faults(), self.all_calls())?;
        let happened = Fault::ALL.into_iter().filter(|fault| self.faults(*fault) > 0);
        for (index, fault) in happened.enumerate() {
            write!(f, "{} {fault} {}", if index == 0 { ":" } else { "," }, self.faults(fault))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_happened() {
        let mut statistics = FaultStatistics::default();
        assert_eq!(statistics.to_string(), "0 faults in 0 calls");
        statistics.count_call(Call::Read);
        for fault in [Fault::ReadFailure, Fault::DeviceLoss, Fault::ReadFailure] {
            statistics.count_fault(fault);
        }
        assert_eq!(statistics.to_string(), "3 faults in 1 calls: read-failure 2, device-loss 1");
        assert_eq!((statistics.calls(Call::Read), statistics.calls(Call::Write)), (1, 0));
    }
}
