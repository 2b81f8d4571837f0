//! Submissions: their order, events between queues and with the host, times, and waits that run out.

use std::time::Duration;

use bessemer_hal::{DeviceError, QueueKind, Submit};
use rand::Rng;
use rand::rngs::SmallRng;

use super::{Rows, buffer, contents, order, record, refused};
use crate::twin::PATIENCE;
use crate::{Check, Failure, Outcome, Twin, data, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "submission_order", run: submission_order },
    Check { name: "upload_compute_download", run: upload_compute_download },
    Check { name: "waits_for_the_host", run: waits_for_the_host },
    Check { name: "events", run: events },
    Check { name: "pending_bytes", run: pending_bytes },
    Check { name: "timing", run: timing },
    Check { name: "threads", run: threads },
];

const SHORT: Duration = Duration::from_millis(20);

/// Submissions of one queue run one after the other, without a wait between them.
fn submission_order(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = Rows { n: rng.random_range(2..60), dim: rng.random_range(1..100) };
    let mut model = rows.ordered();
    let (a, b) = (buffer(device, &model)?, buffer(device, &model)?);
    let mut last = None;
    for step in 0..50 {
        let (order, indices) = order(device, rng, rows.n)?;
        model = rows.shuffled(&model, &order);
        let (from, to) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let commands = record(device, "step", |e| e.dispatch(&rows.shuffle(twin, from, &indices, to)?))?;
        last = Some(device.submit(QueueKind::Compute, Submit::new(&commands))?);
    }
    if let Some(last) = last {
        last.wait(PATIENCE)?;
    }
    equal(&format!("50 shuffles of {rows:?}"), &model, &contents::<f32>(device, &a.whole())?)
}

/// Uploads and downloads on the transfer queue, launches on the compute queue, submitted in the order that only events
/// set right.
fn upload_compute_download(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = Rows { n: rng.random_range(2..300), dim: rng.random_range(1..600) };
    let len = rows.n * rows.dim;
    let zeros = vec![0.0_f32; len];
    let [staging, input, output, back] =
        [buffer(device, &zeros)?, buffer(device, &zeros)?, buffer(device, &zeros)?, buffer(device, &zeros)?];
    let (order, indices) = order(device, rng, rows.n)?;
    let upload = || record(device, "upload", |e| e.copy(&staging.whole(), &input.whole()));
    let compute =
        || record(device, "compute", |e| e.dispatch(&rows.shuffle(twin, &input, &indices, &output)?));
    let download = || record(device, "download", |e| e.copy(&output.whole(), &back.whole()));
    let [uploaded, computed, done] =
        [device.create_event(0)?, device.create_event(0)?, device.create_event(0)?];
    for step in 1..=12 {
        let values = data::floats(rng, len);
        device.write(&staging.whole(), bytemuck::cast_slice(&values))?;
        device.submit(
            QueueKind::Compute,
            Submit {
                commands: &compute()?,
                wait: &[(uploaded.clone(), step)],
                signal: &[(computed.clone(), step)],
            },
        )?;
        device.submit(
            QueueKind::Transfer,
            Submit {
                commands: &upload()?,
                wait: &[(done.clone(), step - 1)],
                signal: &[(uploaded.clone(), step)],
            },
        )?;
        device.submit(
            QueueKind::Transfer,
            Submit {
                commands: &download()?,
                wait: &[(computed.clone(), step)],
                signal: &[(done.clone(), step)],
            },
        )?;
        done.wait(step, PATIENCE)?;
        let want = rows.shuffled(&values, &order);
        equal(&format!("{rows:?}, step {step}"), &want, &contents::<f32>(device, &back.whole())?)?;
    }
    Ok(())
}

/// A submission that waits for the host does so; waiting for it runs out of time, and that harms nothing.
fn waits_for_the_host(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    for queue in [QueueKind::Compute, QueueKind::Transfer] {
        let bytes = data::bytes(rng, 4096);
        let (from, to) = (buffer(device, &bytes)?, buffer(device, &[0_u8; 4096])?);
        let commands = record(device, "gated", |e| e.copy(&from.whole(), &to.whole()))?;
        let (go, done) = (device.create_event(4)?, device.create_event(0)?);
        let submit = Submit { commands: &commands, wait: &[(go.clone(), 5)], signal: &[(done.clone(), 1)] };
        let submission = device.submit(queue, submit)?;
        let timed_out = |what: &str, result: Result<(), DeviceError>| match result {
            Err(DeviceError::Timeout { .. }) => Ok(()),
            other => Err(Failure::wrong(format!("{queue:?}, {what}: should time out, but {other:?}"))),
        };
        timed_out("waiting for a gated submission", submission.wait(SHORT).map(drop))?;
        timed_out("waiting for its event", done.wait(1, SHORT))?;
        if let Some(outcome) = submission.poll() {
            return Err(Failure::wrong(format!("{queue:?}: done before the host let it run: {outcome:?}")));
        }
        go.signal(9);
        submission.wait(PATIENCE)?;
        done.wait(1, PATIENCE)?;
        equal(&format!("{queue:?}: 4096 bytes"), &bytes, &contents::<u8>(device, &to.whole())?)?;
    }
    Ok(())
}

/// Values only rise; every waiting thread wakes; a wait for the future runs out of time.
fn events(twin: &Twin, _: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let event = device.create_event(3)?;
    let value = |want: u64| equal("value of an event", &[want], &[event.value()?]);
    value(3)?;
    event.wait(2, Duration::ZERO)?;
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (4..8)
            .map(|value| {
                scope.spawn({
                    let event = event.clone();
                    move || event.wait(value, PATIENCE)
                })
            })
            .collect();
        std::thread::sleep(SHORT / 4);
        event.signal(5);
        event.signal(7);
        waiting.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(_) => Err(Failure::wrong("a thread that waits for an event panicked")),
        })
    })?;
    event.signal(6);
    value(7)?;
    match event.wait(8, SHORT) {
        Err(DeviceError::Timeout { .. }) => {}
        other => {
            return Err(Failure::wrong(format!("waiting for the future: should time out, but {other:?}")));
        }
    }
    // Submissions raise it too, in any number.
    let commands = record(device, "signals", |_| Ok(()))?;
    let other = device.create_event(0)?;
    let submit = Submit { signal: &[(event.clone(), 20), (other.clone(), 2)], ..Submit::new(&commands) };
    device.submit(QueueKind::Compute, submit)?.wait(PATIENCE)?;
    other.wait(2, PATIENCE)?;
    value(20)
}

/// The host may not touch bytes that pending work writes, nor write those that it reads; all others it may.
fn pending_bytes(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let bytes = data::bytes(rng, 64);
    let (from, to) = (buffer(device, &bytes)?, buffer(device, &[0_u8; 64])?);
    let go = device.create_event(0)?;
    let commands = record(device, "pending", |e| e.copy(&from.slice(0, 32)?, &to.slice(0, 32)?))?;
    let submit = Submit { wait: &[(go.clone(), 1)], ..Submit::new(&commands) };
    let submission = device.submit(QueueKind::Transfer, submit)?;
    let early = (|| {
        refused("reading bytes that pending work writes", device.read(&to.slice(16, 32)?, &mut [0; 32]))?;
        refused("writing bytes that pending work writes", device.write(&to.slice(31, 1)?, &[9]))?;
        refused("writing bytes that pending work reads", device.write(&from.slice(0, 8)?, &[9; 8]))?;
        equal("bytes that pending work reads", &bytes, &contents::<u8>(device, &from.whole())?)?;
        device.write(&to.slice(32, 32)?, &bytes[32..])?;
        equal("the free half", &bytes[32..], &contents::<u8>(device, &to.slice(32, 32)?)?)
    })();
    // Whatever came of it, nothing stays pending.
    go.signal(1);
    submission.wait(PATIENCE)?;
    early?;
    device.write(&from.whole(), &[1; 64])?;
    equal("all bytes", &bytes, &contents::<u8>(device, &to.whole())?)
}

/// Times are those of one clock: each submission ends after its start, and both follow those of the submission before it.
fn timing(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = Rows { n: 256, dim: rng.random_range(500..2000) };
    let (from, to) = (buffer(device, &rows.ordered())?, buffer(device, &rows.ordered())?);
    let (_, indices) = order(device, rng, rows.n)?;
    let mut submissions = Vec::new();
    for _ in 0..6 {
        let commands = record(device, "timed", |e| e.dispatch(&rows.shuffle(twin, &from, &indices, &to)?))?;
        submissions.push(device.submit(QueueKind::Compute, Submit::new(&commands))?);
    }
    let mut times = Vec::new();
    for submission in &submissions {
        times.push(submission.wait(PATIENCE)?);
    }
    let ordered = times.iter().all(|time| time.end_ns > time.start_ns)
        && times
            .windows(2)
            .all(|pair| pair[1].start_ns >= pair[0].start_ns && pair[1].end_ns >= pair[0].end_ns);
    let total = times[times.len() - 1].end_ns.saturating_sub(times[0].start_ns);
    if ordered && total < PATIENCE.as_nanos() as u64 {
        return Ok(());
    }
    Err(Failure::wrong(format!("times of submissions that follow one another: {times:?}")))
}

/// Several threads record, submit, wait and read at the same time.
fn threads(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let seeds: Vec<u64> = (0..4).map(|_| rng.random()).collect();
    let work = |seed: u64| -> Outcome {
        let rng = &mut <SmallRng as rand::SeedableRng>::seed_from_u64(seed);
        let queue = if seed.is_multiple_of(2) { QueueKind::Compute } else { QueueKind::Transfer };
        for round in 0..15 {
            let size = rng.random_range(1..5000) * 4;
            let bytes = data::bytes(rng, size);
            let (from, to) = (buffer(device, &bytes)?, buffer(device, &vec![0_u8; size])?);
            let commands = record(device, "own", |e| e.copy(&from.whole(), &to.whole()))?;
            device.submit(queue, Submit::new(&commands))?.wait(PATIENCE)?;
            let what = format!("{size} bytes on {queue:?}, round {round}");
            equal(&what, &bytes, &contents::<u8>(device, &to.whole())?)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = seeds.iter().map(|&seed| scope.spawn(move || work(seed))).collect();
        started.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::wrong("a thread that uses the device panicked")),
        })
    })
}
