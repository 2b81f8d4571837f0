//! Which call meets which fault.

use super::draws::Draws;
use super::plan::{Call, Fault, FaultPlan};
use super::statistics::FaultStatistics;

/// The plan in force, what is forced, and the counts.
#[derive(Debug)]
pub(crate) struct Schedule {
    plan: FaultPlan,
    armed: bool,
    /// Calls since the plan came into force.
    numbers: [u64; Call::ALL.len()],
    /// Calls to come that meet a fault whatever the plan says.
    forced: [u32; Fault::ALL.len()],
    pub(crate) statistics: FaultStatistics,
}

/// What a call meets.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    pub(crate) fault: Fault,
    /// For its details, so that these are reproduced too.
    pub(crate) draws: Draws,
}

impl Schedule {
    pub(crate) fn new() -> Self {
        Self {
            plan: FaultPlan::new(0),
            armed: false,
            numbers: [0; Call::ALL.len()],
            forced: [0; Fault::ALL.len()],
            statistics: FaultStatistics::default(),
        }
    }

    pub(crate) fn arm(&mut self, plan: FaultPlan) {
        (self.plan, self.armed, self.numbers) = (plan, true, [0; Call::ALL.len()]);
    }

    pub(crate) fn disarm(&mut self) {
        self.armed = false;
        self.forced = [0; Fault::ALL.len()];
    }

    pub(crate) fn force(&mut self, fault: Fault) {
        let forced = &mut self.forced[fault as usize];
        *forced = forced.saturating_add(1);
    }

    pub(crate) fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Counts a call and says what it meets, among the faults that it can.
    pub(crate) fn meet(&mut self, call: Call, can: impl Fn(Fault) -> bool) -> Option<Injection> {
        self.statistics.count_call(call);
        let number = &mut self.numbers[call as usize];
        let mut draws = Draws::new(self.plan.seed(), call, *number);
        *number += 1;
        // Drawn also when it is not needed: details must not depend on what was forced.
        let drawn = draws.fraction();
        let forced = call.faults().iter().copied().find(|&f| self.forced[f as usize] > 0 && can(f));
        if let Some(fault) = forced {
            self.forced[fault as usize] -= 1;
            return Some(Injection { fault, draws });
        }
        let mut bound = 0.0;
        let scheduled = call.faults().iter().copied().find(|&fault| {
            bound += self.plan.rate(fault);
            drawn < bound
        });
        let fault = scheduled.filter(|&fault| self.armed && can(fault))?;
        Some(Injection { fault, draws })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(schedule: &mut Schedule, call: Call) -> Option<Fault> {
        schedule.meet(call, |_| true).map(|injection| injection.fault)
    }

    #[test]
    fn a_seed_gives_a_schedule_for_each_kind_of_call() {
        let run = |seed, reads_between: usize| {
            let mut schedule = Schedule::new();
            schedule.arm(FaultPlan::everything(seed, 0.1));
            let submits = (0..200).map(|_| {
                for _ in 0..reads_between {
                    met(&mut schedule, Call::Read);
                }
                met(&mut schedule, Call::SubmitTransfer)
            });
            submits.collect::<Vec<_>>()
        };
        assert_eq!(run(1, 0), run(1, 0));
        assert_eq!(run(1, 0), run(1, 3));
        assert_ne!(run(1, 0), run(2, 0));
    }

    #[test]
    fn rates_are_kept() {
        let mut schedule = Schedule::new();
        schedule.arm(FaultPlan::new(9).with(Fault::FailureBefore, 0.3).with(Fault::TransferDelay, 0.05));
        let mut counts = [0; Fault::ALL.len()];
        for _ in 0..10_000 {
            if let Some(fault) = met(&mut schedule, Call::SubmitTransfer) {
                counts[fault as usize] += 1;
            }
        }
        let (failures, delays) =
            (counts[Fault::FailureBefore as usize], counts[Fault::TransferDelay as usize]);
        assert!((2800..3200).contains(&failures), "{failures}");
        assert!((400..600).contains(&delays), "{delays}");
        assert_eq!(counts.iter().sum::<i32>(), failures + delays);
        assert_eq!(schedule.statistics.calls(Call::SubmitTransfer), 10_000);
    }

    #[test]
    fn what_is_forced_waits_for_a_call_that_can_meet_it() {
        let mut schedule = Schedule::new();
        schedule.force(Fault::TransferCorruption);
        schedule.force(Fault::TransferCorruption);
        assert_eq!(met(&mut schedule, Call::SubmitCompute), None);
        assert!(schedule.meet(Call::SubmitTransfer, |fault| fault != Fault::TransferCorruption).is_none());
        assert_eq!(met(&mut schedule, Call::SubmitTransfer), Some(Fault::TransferCorruption));
        schedule.disarm();
        assert_eq!(met(&mut schedule, Call::SubmitTransfer), None);
    }

    #[test]
    fn forcing_and_disarming_leave_the_schedule_as_it_is() {
        let run = |forced: bool| {
            let mut schedule = Schedule::new();
            schedule.arm(FaultPlan::new(5).with(Fault::ReadFailure, 0.5));
            if forced {
                schedule.force(Fault::ReadFailure);
            }
            (0..50).map(|_| met(&mut schedule, Call::Read)).collect::<Vec<_>>()
        };
        assert_eq!(run(false)[1..], run(true)[1..]);
        assert_eq!(run(true)[0], Some(Fault::ReadFailure));
        let mut schedule = Schedule::new();
        schedule.arm(FaultPlan::new(5).with(Fault::ReadFailure, 1.0));
        schedule.disarm();
        assert_eq!(met(&mut schedule, Call::Read), None);
    }
}
