//! Who is in flight: the ring without a device, a pure state that the tests explore by themselves.

use std::collections::VecDeque;

use bessemer_hal::{Result, Timing};

/// Something that was submitted and will end.
pub(super) trait InFlight: Clone {
    /// `None` while it runs.
    fn poll(&self) -> Option<Result<Timing>>;
}

/// What somebody who wants a slot has to do.
#[derive(Clone, Debug)]
pub(super) enum Want<S> {
    /// Go ahead: a slot is taken for it.
    Go,
    /// Wait for this, the oldest, and ask again.
    WaitFor(S),
    /// All slots are taken by others who have not submitted yet: ask again when one of them has.
    WaitForOthers,
    /// Too many went ahead without a slot.
    Refused,
}

/// Slots beyond the ring that submissions may take which need not or cannot wait, in rings.
const BEYOND: usize = 3;

/// Submissions in flight, oldest first, and slots that were given out for coming ones.
#[derive(Debug)]
pub(super) struct Slots<S> {
    in_flight: VecDeque<S>,
    reserved: usize,
}

impl<S> Default for Slots<S> {
    fn default() -> Self {
        Self { in_flight: VecDeque::new(), reserved: 0 }
    }
}

impl<S: InFlight> Slots<S> {
    /// Asks for a slot of a ring of `ring_size`. `beyond`: the ring may be exceeded.
    pub(super) fn want(&mut self, ring_size: usize, beyond: bool) -> Want<S> {
        let taken = self.taken();
        if taken < ring_size || beyond && taken < ring_size * (1 + BEYOND) {
            self.reserved += 1;
            return Want::Go;
        }
        match self.in_flight.front() {
            _ if beyond => Want::Refused,
            Some(oldest) => Want::WaitFor(oldest.clone()),
            None => Want::WaitForOthers,
        }
    }

    /// A slot that was given out is used.
    pub(super) fn fill(&mut self, submission: S) {
        self.reserved = self.reserved.saturating_sub(1);
        self.in_flight.push_back(submission);
    }

    /// A slot that was given out is not used.
    pub(super) fn give_back(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Takes those out that have ended.
    pub(super) fn reap(&mut self, mut ended: impl FnMut(Result<Timing>)) {
        self.in_flight.retain(|submission| match submission.poll() {
            None => true,
            Some(outcome) => {
                ended(outcome);
                false
            }
        });
    }

    /// Slots in use or given out.
    pub(super) fn taken(&self) -> usize {
        self.in_flight.len() + self.reserved
    }

    /// Submissions in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The submission that was made last.
    pub(super) fn newest(&self) -> Option<S> {
        self.in_flight.back().cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    /// Ends when it is told to.
    #[derive(Clone, Debug)]
    struct Job(usize, Rc<Cell<bool>>);

    impl InFlight for Job {
        fn poll(&self) -> Option<Result<Timing>> {
            self.1.get().then_some(Ok(Timing { start_ns: 0, end_ns: 1 }))
        }
    }

    fn job(id: usize) -> Job {
        Job(id, Rc::default())
    }

    fn fill(slots: &mut Slots<Job>, jobs: &[Job]) {
        for job in jobs {
            assert!(matches!(slots.want(jobs.len(), false), Want::Go));
            slots.fill(job.clone());
        }
    }

    #[test]
    fn a_full_ring_waits_for_its_oldest() {
        let mut slots = Slots::default();
        let jobs = [job(0), job(1)];
        fill(&mut slots, &jobs);
        let Want::WaitFor(Job(oldest, _)) = slots.want(2, false) else { panic!("it is full") };
        assert_eq!((oldest, slots.in_flight(), slots.taken()), (0, 2, 2));
        jobs[0].1.set(true);
        let mut ended = 0;
        slots.reap(|_| ended += 1);
        assert!(matches!(slots.want(2, false), Want::Go));
        assert_eq!((ended, slots.in_flight(), slots.taken()), (1, 1, 2));
        slots.give_back();
        assert_eq!((slots.taken(), slots.newest().map(|job| job.0)), (1, Some(1)));
    }

    #[test]
    fn beyond_the_ring_is_bounded_too() {
        let mut slots = Slots::default();
        fill(&mut slots, &[job(0), job(1)]);
        for _ in 0..2 * BEYOND {
            assert!(matches!(slots.want(2, true), Want::Go));
        }
        assert!(matches!(slots.want(2, true), Want::Refused));
    }

    #[test]
    fn slots_that_others_hold_are_not_waited_for_on_the_device() {
        let mut slots: Slots<Job> = Slots::default();
        assert!(matches!(slots.want(2, false), Want::Go));
        assert!(matches!(slots.want(2, false), Want::Go));
        assert!(matches!(slots.want(2, false), Want::WaitForOthers));
        slots.give_back();
        assert!(matches!(slots.want(2, false), Want::Go));
    }

    proptest! {
        /// Whatever is asked for, submitted, given back or ended: never more than the ring, nobody lost.
        #[test]
        fn the_ring_is_never_exceeded(ring_size in 2_usize..9, moves in prop::collection::vec(0_u8..4, 0..200)) {
            let mut slots: Slots<Job> = Slots::default();
            let (mut held, mut running, mut submitted, mut ended) = (0_usize, Vec::<Job>::new(), 0, 0);
            for next in moves {
                match next {
                    0 => match slots.want(ring_size, false) {
                        Want::Go => held += 1,
                        Want::WaitFor(job) => prop_assert_eq!(job.0, running[0].0, "the oldest"),
                        Want::WaitForOthers => prop_assert!(running.is_empty() && held == ring_size),
                        Want::Refused => prop_assert!(false, "nobody may go beyond"),
                    },
                    1 if held > 0 => {
                        held -= 1;
                        running.push(job(submitted));
                        slots.fill(running.last().unwrap().clone());
                        submitted += 1;
                    }
                    2 if held > 0 => {
                        held -= 1;
                        slots.give_back();
                    }
                    3 if !running.is_empty() => {
                        let done = running.remove(running.len() / 2);
                        done.1.set(true);
                        slots.reap(|_| ended += 1);
                    }
                    _ => {}
                }
                prop_assert!(slots.taken() <= ring_size);
                prop_assert_eq!(slots.taken(), held + running.len());
                prop_assert_eq!(submitted, ended + running.len());
            }
        }
    }
}
