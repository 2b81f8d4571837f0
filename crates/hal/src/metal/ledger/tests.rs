//! The ledger over a GPU of this file: what was handed over is written down, and ends when a test says so.

use std::sync::{Mutex, Weak};
use std::time::Duration;

use super::*;
use crate::monitor::lock;
use crate::{Buffer, Event, Submission};

use super::super::event::Pump;

const NOW: Duration = Duration::ZERO;
const COMPUTE: usize = 0;
const TRANSFER: usize = 1;

struct Job {
    label: &'static str,
    ticks: u64,
    print: Footprint,
}

impl Work for Job {
    fn label(&self) -> &str {
        self.label
    }

    fn footprint(&self) -> &Footprint {
        &self.print
    }

    fn ticks(&self) -> u64 {
        self.ticks
    }
}

/// What the GPU was told: lane, label, first tick, what it waits for.
type Handed = (usize, &'static str, u64, [u64; LANES]);

struct Fake {
    ledger: Ledger<Job>,
    handed: Mutex<Vec<Handed>>,
    /// The timelines as the host raised them.
    raised: Mutex<[u64; LANES]>,
    /// Refuses the submission with this label after so many command buffers.
    refuse: Mutex<Option<(&'static str, u64)>>,
    me: Weak<Self>,
}

impl Gpu<Job> for Fake {
    fn hand_over(
        &self,
        lane: usize,
        work: &Arc<Job>,
        first_tick: u64,
        after: [u64; LANES],
    ) -> Result<(), (u64, DeviceError)> {
        if let Some((label, committed)) = *lock(&self.refuse)
            && label == work.label
        {
            return Err((committed, failed("refused")));
        }
        lock(&self.handed).push((lane, work.label, first_tick, after));
        Ok(())
    }

    fn raise(&self, lane: usize, tick: u64) {
        let at = &mut lock(&self.raised)[lane];
        assert!(tick >= *at, "lane {lane} was lowered from {at} to {tick}");
        *at = tick;
    }
}

impl Pump for Fake {
    fn pump(&self) {
        self.ledger.pump(self);
    }
}

fn failed(reason: &str) -> DeviceError {
    DeviceError::Submission { label: "job".into(), reason: reason.into() }
}

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            ledger: Ledger::default(),
            handed: Mutex::default(),
            raised: Mutex::default(),
            refuse: Mutex::default(),
            me: me.clone(),
        })
    }

    fn event(&self) -> Event {
        MetalEvent::event(1, self.me.clone(), 0)
    }

    fn submit(
        &self,
        lane: usize,
        label: &'static str,
        ticks: u64,
        wait: &[(&Event, u64)],
        signal: &[(&Event, u64)],
    ) -> Submission {
        let own = |events: &[(&Event, u64)]| {
            events.iter().map(|(event, value)| (MetalEvent::of(event, 1).unwrap(), *value)).collect()
        };
        let work = Arc::new(Job { label, ticks, print: Footprint::default() });
        let entry = Entry::new(work, own(wait), own(signal));
        let state = entry.state.clone();
        self.ledger.submit(self, lane, entry).unwrap();
        state.handle()
    }

    fn end(&self, lane: usize, tick: u64) {
        self.ledger.ended(self, lane, tick, Ok((tick as f64, tick as f64 + 0.5)));
    }

    fn fail(&self, lane: usize, tick: u64, reason: &str) {
        self.ledger.ended(self, lane, tick, Err(failed(reason)));
    }

    fn handed(&self) -> Vec<Handed> {
        std::mem::take(&mut lock(&self.handed))
    }
}

fn running(submission: &Submission) -> bool {
    submission.poll().is_none()
}

#[test]
fn a_lane_runs_in_order_and_waits_for_what_is_on_the_gpu() {
    let gpu = Fake::new();
    let a = gpu.submit(COMPUTE, "a", 3, &[], &[]);
    let b = gpu.submit(COMPUTE, "b", 1, &[], &[]);
    assert_eq!(gpu.handed(), [(COMPUTE, "a", 1, [0, 0]), (COMPUTE, "b", 4, [3, 0])]);
    gpu.end(COMPUTE, 1);
    gpu.end(COMPUTE, 2);
    assert!(running(&a));
    // The report of the later one may come first.
    gpu.end(COMPUTE, 4);
    assert!(running(&a) && running(&b));
    gpu.end(COMPUTE, 3);
    let timing = Timing { start_ns: 1_000_000_000, end_ns: 3_500_000_000 };
    assert_eq!(a.wait(NOW), Ok(timing));
    assert!(b.wait(NOW).is_ok());
    // Nothing is on the GPU: nothing to wait for.
    gpu.submit(COMPUTE, "c", 1, &[], &[]);
    assert_eq!(gpu.handed(), [(COMPUTE, "c", 5, [0, 0])]);
}

#[test]
fn other_lanes_are_waited_for_on_the_gpu() {
    let gpu = Fake::new();
    let event = gpu.event();
    let up = gpu.submit(TRANSFER, "up", 2, &[], &[(&event, 5)]);
    let step = gpu.submit(COMPUTE, "step", 1, &[(&event, 4)], &[(&event, 6)]);
    let down = gpu.submit(TRANSFER, "down", 1, &[(&event, 6)], &[]);
    assert_eq!(
        gpu.handed(),
        [(TRANSFER, "up", 1, [0, 0]), (COMPUTE, "step", 1, [0, 2]), (TRANSFER, "down", 3, [1, 2])]
    );
    // The step's end is reported before that of what it waited for on the GPU.
    gpu.end(COMPUTE, 1);
    assert!(running(&step));
    assert_eq!(event.value(), Ok(0));
    gpu.end(TRANSFER, 1);
    gpu.end(TRANSFER, 2);
    assert!(up.wait(NOW).is_ok() && step.wait(NOW).is_ok());
    assert_eq!(event.value(), Ok(6));
    assert!(running(&down));
    gpu.end(TRANSFER, 3);
    assert!(down.wait(NOW).is_ok());
}

#[test]
fn the_nearest_promise_is_waited_for() {
    let gpu = Fake::new();
    let event = gpu.event();
    gpu.submit(TRANSFER, "far", 1, &[], &[(&event, 5)]);
    gpu.submit(COMPUTE, "near", 1, &[], &[(&event, 3)]);
    gpu.submit(COMPUTE, "between", 1, &[], &[]);
    gpu.submit(TRANSFER, "waiter", 1, &[(&event, 2)], &[]);
    assert_eq!(gpu.handed().last(), Some(&(TRANSFER, "waiter", 2, [1, 1])));
}

#[test]
fn what_nobody_has_promised_is_held_on_the_host() {
    let gpu = Fake::new();
    let event = gpu.event();
    let first = gpu.submit(COMPUTE, "first", 1, &[(&event, 1)], &[]);
    // Its own lane keeps the order, though this one waits for nothing.
    let second = gpu.submit(COMPUTE, "second", 1, &[], &[(&event, 3)]);
    let other = gpu.submit(TRANSFER, "other", 1, &[(&event, 2)], &[]);
    assert_eq!(gpu.handed(), []);
    event.signal(1);
    // With the second, the other's value is promised.
    assert_eq!(
        gpu.handed(),
        [(COMPUTE, "first", 1, [0, 0]), (COMPUTE, "second", 2, [1, 0]), (TRANSFER, "other", 1, [2, 0])]
    );
    gpu.end(COMPUTE, 1);
    gpu.end(COMPUTE, 2);
    gpu.end(TRANSFER, 1);
    for submission in [first, second, other] {
        assert!(submission.wait(NOW).is_ok());
    }
}

#[test]
fn a_failure_reaches_everybody_who_waited_whichever_is_reported_first() {
    for waiter_first in [false, true] {
        let gpu = Fake::new();
        let (event, done) = (gpu.event(), gpu.event());
        let bad = gpu.submit(TRANSFER, "bad", 1, &[], &[(&event, 1)]);
        let waiter = gpu.submit(COMPUTE, "waiter", 1, &[(&event, 1)], &[(&done, 1)]);
        let after = gpu.submit(COMPUTE, "after", 1, &[], &[(&done, 2)]);
        if waiter_first {
            gpu.end(COMPUTE, 1);
            gpu.fail(TRANSFER, 1, "page fault");
        } else {
            gpu.fail(TRANSFER, 1, "page fault");
            gpu.end(COMPUTE, 1);
        }
        gpu.end(COMPUTE, 2);
        let fault = failed("page fault");
        assert_eq!(bad.wait(NOW).unwrap_err(), fault);
        assert_eq!(waiter.wait(NOW).unwrap_err(), fault);
        assert_eq!(event.wait(1, NOW).unwrap_err(), fault);
        assert_eq!(done.wait(1, NOW).unwrap_err(), fault);
        // It waited for nothing that failed.
        assert!(after.wait(NOW).is_ok());
        assert_eq!(done.value(), Ok(2));
        // Whoever waits for a failed value now is not run at all.
        gpu.handed();
        let late = gpu.submit(COMPUTE, "late", 1, &[(&event, 1)], &[(&done, 3)]);
        assert_eq!(late.wait(NOW).unwrap_err(), fault);
        assert_eq!(gpu.handed(), []);
        assert_eq!(done.wait(3, NOW).unwrap_err(), fault);
        // A later success serves later values.
        gpu.submit(TRANSFER, "good", 1, &[], &[(&event, 2)]);
        gpu.end(TRANSFER, 2);
        assert!(event.wait(2, NOW).is_ok());
        assert_eq!(event.wait(1, NOW).unwrap_err(), fault);
    }
}

#[test]
fn a_failed_part_fails_its_submission_and_the_timeline_goes_on() {
    let gpu = Fake::new();
    let a = gpu.submit(COMPUTE, "a", 3, &[], &[]);
    gpu.end(COMPUTE, 1);
    gpu.fail(COMPUTE, 2, "hang");
    // The third waits for the second's tick on the GPU; the host raised it.
    assert_eq!(lock(&gpu.raised)[COMPUTE], 2);
    assert!(running(&a));
    gpu.end(COMPUTE, 3);
    assert_eq!(a.wait(NOW).unwrap_err(), failed("hang"));
    assert_eq!(lock(&gpu.raised)[COMPUTE], 3);
}

#[test]
fn the_timeline_is_never_raised_over_what_still_runs() {
    let gpu = Fake::new();
    gpu.submit(COMPUTE, "a", 1, &[], &[]);
    gpu.submit(COMPUTE, "b", 2, &[], &[]);
    gpu.fail(COMPUTE, 3, "discarded");
    gpu.fail(COMPUTE, 2, "discarded");
    assert_eq!(lock(&gpu.raised)[COMPUTE], 0);
    gpu.end(COMPUTE, 1);
    assert_eq!(lock(&gpu.raised)[COMPUTE], 3);
}

#[test]
fn what_cannot_be_encoded_fails_after_what_was_committed_of_it() {
    let gpu = Fake::new();
    let event = gpu.event();
    *lock(&gpu.refuse) = Some(("half", 1));
    let before = gpu.submit(COMPUTE, "before", 1, &[], &[]);
    let half = gpu.submit(COMPUTE, "half", 3, &[], &[(&event, 1)]);
    let waiter = gpu.submit(TRANSFER, "waiter", 1, &[(&event, 1)], &[]);
    assert!(running(&half), "its first command buffer is on the GPU");
    gpu.end(COMPUTE, 1);
    assert!(before.wait(NOW).is_ok());
    gpu.end(COMPUTE, 2);
    assert_eq!(half.wait(NOW).unwrap_err(), failed("refused"));
    // The waiter was handed over when the value was promised; its lane's waits were released.
    assert_eq!(lock(&gpu.raised)[COMPUTE], 4);
    gpu.end(TRANSFER, 1);
    assert_eq!(waiter.wait(NOW).unwrap_err(), failed("refused"));
}

#[test]
fn a_lane_has_a_limited_number_of_command_buffers_on_the_gpu() {
    let gpu = Fake::new();
    let all: Vec<_> = (0..MAX_TICKS + 10).map(|_| gpu.submit(COMPUTE, "job", 1, &[], &[])).collect();
    assert_eq!(gpu.handed().len() as u64, MAX_TICKS);
    gpu.end(COMPUTE, 1);
    assert_eq!(gpu.handed().len(), 1);
    for tick in 2..=MAX_TICKS + 10 {
        gpu.end(COMPUTE, tick);
    }
    assert!(all.iter().all(|submission| submission.wait(NOW).is_ok()));
}

#[test]
fn closing_fails_what_is_held_and_lets_the_gpu_finish() {
    let gpu = Fake::new();
    let event = gpu.event();
    let on_gpu = gpu.submit(COMPUTE, "on the GPU", 1, &[], &[]);
    let held = gpu.submit(COMPUTE, "held", 1, &[(&event, 1)], &[(&event, 2)]);
    gpu.ledger.close("gone");
    assert!(running(&on_gpu) && running(&held), "a lane is settled in order");
    gpu.end(COMPUTE, 1);
    assert!(on_gpu.wait(NOW).is_ok());
    assert_eq!(held.wait(NOW).unwrap_err(), DeviceError::Lost("gone".into()));
    assert_eq!(event.wait(2, NOW).unwrap_err(), DeviceError::Lost("gone".into()));
    assert_eq!(gpu.ledger.alive(), Err(DeviceError::Lost("gone".into())));
}

#[test]
fn a_lost_gpu_loses_what_is_held() {
    let gpu = Fake::new();
    let event = gpu.event();
    let running_one = gpu.submit(COMPUTE, "running", 1, &[], &[]);
    let held = gpu.submit(TRANSFER, "held", 1, &[(&event, 1)], &[]);
    let lost = DeviceError::Lost("removed".into());
    gpu.ledger.ended(&*gpu, COMPUTE, 1, Err(lost.clone()));
    assert_eq!(running_one.wait(NOW), Err(lost.clone()));
    assert_eq!(held.wait(NOW), Err(lost.clone()));
    assert_eq!(gpu.ledger.alive(), Err(lost));
}

#[test]
fn the_host_keeps_away_from_what_is_under_way() {
    let gpu = Fake::new();
    let buffer = Buffer::new("b", 64, Arc::new(()));
    let whole = buffer.whole();
    let mut print = Footprint::default();
    print.add(Extent::new(100, 10), true);
    print.add(Extent::new(120, 10), false);
    let entry = Entry::new(Arc::new(Job { label: "job", ticks: 1, print }), vec![], vec![]);
    gpu.ledger.submit(&*gpu, COMPUTE, entry).unwrap();
    let access = |start, size, writes| gpu.ledger.host(&whole, Extent::new(start, size), writes, || Ok(()));
    for (start, writes, allowed) in
        [(100, false, false), (109, true, false), (110, true, true), (120, false, true), (129, true, false)]
    {
        let answer = access(start, 1, writes);
        assert_eq!(answer.is_ok(), allowed, "{start} {writes}: {answer:?}");
    }
    let rule = access(100, 1, false).unwrap_err().to_string();
    assert!(rule.contains("'job'") && rule.contains("wait"), "{rule}");
    gpu.end(COMPUTE, 1);
    access(100, 30, true).unwrap();
    // And from what another thread of the host is doing.
    let inner = gpu.ledger.host(&whole, Extent::new(0, 8), true, || access(4, 8, false));
    assert!(inner.unwrap_err().to_string().contains("another thread"));
    let while_reading = gpu.ledger.host(&whole, Extent::new(0, 8), false, || {
        access(4, 8, false)?;
        let mut print = Footprint::default();
        print.add(Extent::new(7, 1), true);
        let entry = Entry::new(Arc::new(Job { label: "late", ticks: 1, print }), vec![], vec![]);
        gpu.ledger.submit(&*gpu, COMPUTE, entry)
    });
    assert!(while_reading.unwrap_err().to_string().contains("'late'"));
}
