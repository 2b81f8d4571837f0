//! Random schedules over random programs of copies.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan, FaultStatistics};
use bessemer_hal::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use crate::kernels::{LONG, repeat};
use crate::support::{each, settles_at};

const BUFFERS: usize = 4;
const SIZE: usize = 48;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write {
        buffer: usize,
        byte: u8,
    },
    Read {
        buffer: usize,
    },
    /// Waits for the submission that many before it, if there is one.
    Copy {
        from: usize,
        to: usize,
        queue: QueueKind,
        after: Option<usize>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let queue = prop_oneof![Just(QueueKind::Compute), Just(QueueKind::Transfer)];
    let copy = (0..BUFFERS, 0..BUFFERS - 1, queue, proptest::option::of(0..3_usize));
    prop_oneof![
        1 => (0..BUFFERS, any::<u8>()).prop_map(|(buffer, byte)| Step::Write { buffer, byte }),
        1 => (0..BUFFERS).prop_map(|buffer| Step::Read { buffer }),
        4 => copy.prop_map(|(from, other, queue, after)| {
            Step::Copy { from, to: (from + 1 + other) % BUFFERS, queue, after }
        }),
    ]
}

fn plan() -> impl Strategy<Value = FaultPlan> {
    (any::<u64>(), 0.0..0.25, prop_oneof![3 => Just(0.0), 1 => 0.0..0.1]).prop_map(|(seed, rate, loss)| {
        FaultPlan::everything(seed, rate)
            .with(Fault::DeviceLoss, loss)
            .with_delay(Duration::from_millis(2))
            .with_timeout(Duration::from_millis(4))
    })
}

/// A submission, the event that it alone raises to 1, and which submission it waited for.
struct Sent {
    submission: Submission,
    event: Event,
    after: Option<usize>,
}

fn buffers(device: &dyn Device) -> Result<Vec<Buffer>> {
    let size = SIZE as u64;
    let own = (1..BUFFERS).map(|_| device.create_buffer(&BufferDesc::own("own", size)));
    let mut all = own.collect::<Result<Vec<_>>>()?;
    let heap = device.create_heap(&HeapDesc { label: "heap", size })?;
    all.push(device.create_buffer(&BufferDesc { label: "placed", size, place: Place::Heap(&heap, 0) })?);
    Ok(all)
}

fn send(
    device: &dyn Device,
    (from, to): (&Buffer, &Buffer),
    queue: QueueKind,
    wait: Option<&Event>,
) -> Result<(Submission, Event)> {
    let mut encoder = device.create_encoder("copy")?;
    encoder.copy(&from.whole(), &to.whole())?;
    let commands = encoder.finish()?;
    let event = device.create_event(0)?;
    let wait: Vec<_> = wait.map(|event| (event.clone(), 1)).into_iter().collect();
    let submit = Submit { wait: &wait, signal: &[(event.clone(), 1)], ..Submit::new(&commands) };
    Ok((device.submit(queue, submit)?, event))
}

/// Runs a program, leaving out what is refused; each submission is waited for at once, or all at the end.
fn run(device: &dyn Device, steps: &[Step], at_once: bool) -> Result<(Vec<Sent>, Vec<String>)> {
    let buffers = buffers(device)?;
    let (mut sent, mut said): (Vec<Sent>, Vec<String>) = (Vec::new(), Vec::new());
    for step in steps {
        match *step {
            Step::Write { buffer, byte } => {
                said.push(format!("{:?}", device.write(&buffers[buffer].whole(), &[byte; SIZE])));
            }
            Step::Read { buffer } => {
                let mut data = [0; SIZE];
                said.push(format!("{:?}", device.read(&buffers[buffer].whole(), &mut data)));
                // Bytes of new memory are anything, and those of Vulkan differ from run to run.
            }
            Step::Copy { from, to, queue, after } => {
                let after = after.and_then(|back| sent.len().checked_sub(back + 1));
                let wait = after.map(|index| &sent[index].event);
                match send(device, (&buffers[from], &buffers[to]), queue, wait) {
                    Ok((submission, event)) => {
                        if at_once {
                            said.push(format!("{:?}", submission.wait(LONG).map(drop)));
                        }
                        sent.push(Sent { submission, event, after });
                    }
                    Err(error) => said.push(error.to_string()),
                }
            }
        }
    }
    Ok((sent, said))
}

fn check(sent: &[Sent]) {
    let outcomes: Vec<_> = sent.iter().map(|s| s.submission.wait(LONG)).collect();
    for (index, (sent, outcome)) in sent.iter().zip(&outcomes).enumerate() {
        // One outcome, and always the same.
        assert!(!matches!(outcome, Err(DeviceError::Timeout { .. })), "submission {index} hangs");
        assert_eq!(sent.submission.poll().as_ref(), Some(outcome));
        assert_eq!(&sent.submission.wait(Duration::ZERO), outcome);
        match (sent.event.wait(1, LONG), outcome) {
            (Ok(()), Ok(_)) => {}
            (Err(event), Err(submission)) => {
                let lost = matches!(submission, DeviceError::Lost(_));
                assert!(event == *submission || lost, "{event} for {submission}");
                assert!(!matches!(event, DeviceError::Timeout { .. }));
            }
            (event, _) => panic!("submission {index}: {outcome:?}, its event {event:?}"),
        }
        if let Some(after) = sent.after
            && outcomes[after].is_err()
        {
            assert!(outcome.is_err(), "submission {index} ran although what it waited for failed");
        }
    }
}

#[test]
fn nothing_hangs_and_no_memory_is_lost() {
    each(|inner| {
        let cases = repeat(96, 2) as u32;
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let before = inner.allocated();
        let program = (plan(), vec(step(), 1..40));
        let outcome = runner.run(&program, |(plan, steps)| {
            let device = FaultDevice::new(inner.clone());
            device.arm(plan);
            if let Ok((sent, _)) = run(&*device, &steps, false) {
                check(&sent);
                // The handles of submissions hold no memory.
                settles_at(&*inner, before);
            }
            settles_at(&*inner, before);
            // Dropped in the midst of things: it ends all the same.
            let device = FaultDevice::new(inner.clone());
            device.arm(FaultPlan::everything(7, 0.2));
            if let Ok((sent, _)) = run(&*device, &steps, false) {
                drop(device);
                check(&sent);
            }
            settles_at(&*inner, before);
            Ok(())
        });
        outcome.unwrap();
    });
}

#[test]
fn a_seed_gives_the_same_schedule() {
    each(|inner| {
        let play = |seed: u64, steps: &[Step]| -> (Vec<String>, FaultStatistics) {
            let device = FaultDevice::new(inner.clone());
            let plan = FaultPlan::everything(seed, 0.2).with(Fault::DeviceLoss, 0.01);
            let plan = plan.with_delay(Duration::from_millis(1)).with_timeout(Duration::from_millis(2));
            let made: Result<()> = buffers(&*device).map(drop);
            made.unwrap();
            device.arm(plan.with(Fault::BufferMemory, 0.0).with(Fault::HeapMemory, 0.0));
            let said = run(&*device, steps, true).map_or_else(|e| vec![e.to_string()], |(_, said)| said);
            (said, device.statistics())
        };
        let mut runner = TestRunner::deterministic();
        let program = vec(step(), 60);
        let steps = program.new_tree(&mut runner).unwrap().current();
        let first: Vec<_> = (0..repeat(8, 1) as u64).map(|seed| play(seed, &steps)).collect();
        let second: Vec<_> = (0..first.len() as u64).map(|seed| play(seed, &steps)).collect();
        assert_eq!(first, second);
        let faults: u64 = first.iter().map(|(_, statistics)| statistics.all_faults()).sum();
        assert!(faults > 0);
        assert!(first.windows(2).all(|w| w[0] != w[1]));
    });
}

#[test]
fn many_threads_may_call_it() {
    each(|inner| {
        let before = inner.allocated();
        let device: Arc<FaultDevice> = FaultDevice::new(inner.clone());
        device.arm(
            FaultPlan::everything(11, 0.15)
                .with_delay(Duration::from_millis(1))
                .with_timeout(Duration::from_millis(2)),
        );
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let device = &device;
                scope.spawn(move || {
                    for round in 0..repeat(20, 1) {
                        let copy = |i: usize| Step::Copy {
                            from: i % BUFFERS,
                            to: (i + 1) % BUFFERS,
                            queue: if i % 3 == thread % 3 { QueueKind::Transfer } else { QueueKind::Compute },
                            after: i.is_multiple_of(2).then_some(0),
                        };
                        let steps: Vec<_> = (0..10).map(|i| copy(i + round)).collect();
                        if let Ok((sent, _)) = run(&**device, &steps, false) {
                            check(&sent);
                        }
                    }
                });
            }
        });
        let statistics = device.statistics();
        assert!(statistics.all_faults() > 0, "{statistics}");
        settles_at(&*inner, before);
    });
}
