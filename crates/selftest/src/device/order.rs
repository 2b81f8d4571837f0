//! Order inside a command buffer, and command buffers that run again.

use bessemer_hal::{QueueKind, Submit};
use rand::Rng;
use rand::rngs::SmallRng;

use super::{Rows, buffer, contents, order, record, refused, run};
use crate::twin::PATIENCE;
use crate::{Check, Outcome, Twin, data, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "dependent_launches", run: dependent_launches },
    Check { name: "independent_launches", run: independent_launches },
    Check { name: "copies_between_launches", run: copies_between_launches },
    Check { name: "write_after_read", run: write_after_read },
    Check { name: "many_launches", run: many_launches },
    Check { name: "resubmission", run: resubmission },
    Check { name: "empty_launch", run: empty_launch },
];

fn random_rows(rng: &mut SmallRng) -> Rows {
    Rows { n: rng.random_range(2..200), dim: rng.random_range(1..600) }
}

/// A chain of shuffles, each of the result before it.
fn dependent_launches(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = random_rows(rng);
    let mut model = rows.ordered();
    let ping_pong = [buffer(device, &model)?, buffer(device, &model)?];
    let orders = [order(device, rng, rows.n)?, order(device, rng, rows.n)?, order(device, rng, rows.n)?];
    let commands = record(device, "chain", |e| {
        for step in 0..40 {
            let (order, indices) = &orders[step % 3];
            model = rows.shuffled(&model, order);
            e.dispatch(&rows.shuffle(twin, &ping_pong[step % 2], indices, &ping_pong[1 - step % 2])?)?;
            e.barrier();
        }
        Ok(())
    })?;
    run(device, QueueKind::Compute, &commands)?;
    equal(&format!("40 shuffles of {rows:?}"), &model, &contents::<f32>(device, &ping_pong[0].whole())?)
}

/// Launches that may run at the same time.
fn independent_launches(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = random_rows(rng);
    let source = rows.ordered();
    let from = buffer(device, &source)?;
    let mut parts = Vec::new();
    for _ in 0..16 {
        parts.push((order(device, rng, rows.n)?, buffer(device, &vec![-1.0_f32; source.len()])?));
    }
    let commands = record(device, "side by side", |e| {
        for ((_, indices), to) in &parts {
            e.dispatch(&rows.shuffle(twin, &from, indices, to)?)?;
        }
        Ok(())
    })?;
    run(device, QueueKind::Compute, &commands)?;
    for (at, ((order, _), to)) in parts.iter().enumerate() {
        let want = rows.shuffled(&source, order);
        equal(&format!("shuffle {at} of {rows:?}"), &want, &contents::<f32>(device, &to.whole())?)?;
    }
    Ok(())
}

/// A copy sees what a launch wrote, and a launch what a copy wrote.
fn copies_between_launches(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = random_rows(rng);
    let mut model = rows.ordered();
    let (a, b) = (buffer(device, &model)?, buffer(device, &vec![-1.0_f32; model.len()])?);
    let (order, indices) = order(device, rng, rows.n)?;
    let commands = record(device, "launch and copy", |e| {
        for _ in 0..8 {
            model = rows.shuffled(&model, &order);
            e.dispatch(&rows.shuffle(twin, &a, &indices, &b)?)?;
            e.barrier();
            e.copy(&b.whole(), &a.whole())?;
            e.barrier();
        }
        Ok(())
    })?;
    run(device, QueueKind::Compute, &commands)?;
    equal(&format!("8 shuffles of {rows:?} in place"), &model, &contents::<f32>(device, &a.whole())?)
}

/// What a launch reads stays until it has read it.
fn write_after_read(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = Rows { n: rng.random_range(200..400), dim: rng.random_range(500..1000) };
    let source = rows.ordered();
    let (from, to) = (buffer(device, &source)?, buffer(device, &vec![-1.0_f32; source.len()])?);
    let over = buffer(device, &vec![-2.0_f32; source.len()])?;
    let (order, indices) = order(device, rng, rows.n)?;
    let commands = record(device, "read, then written", |e| {
        e.dispatch(&rows.shuffle(twin, &from, &indices, &to)?)?;
        e.barrier();
        e.copy(&over.whole(), &from.whole())
    })?;
    run(device, QueueKind::Compute, &commands)?;
    equal(
        &format!("a shuffle of {rows:?}"),
        &rows.shuffled(&source, &order),
        &contents::<f32>(device, &to.whole())?,
    )?;
    equal("its source afterwards", &vec![-2.0; source.len()], &contents::<f32>(device, &from.whole())?)
}

/// As many launches as a step of a large model has.
fn many_launches(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    const LAUNCHES: usize = 1000;
    let device = twin.device();
    let rows = Rows { n: rng.random_range(2..10), dim: rng.random_range(1..5) };
    let mut model = rows.ordered();
    let ping_pong = [buffer(device, &model)?, buffer(device, &model)?];
    let (order, indices) = order(device, rng, rows.n)?;
    let commands = record(device, "many", |e| {
        for step in 0..LAUNCHES {
            model = rows.shuffled(&model, &order);
            e.dispatch(&rows.shuffle(twin, &ping_pong[step % 2], &indices, &ping_pong[1 - step % 2])?)?;
            e.barrier();
        }
        Ok(())
    })?;
    run(device, QueueKind::Compute, &commands)?;
    let got = contents::<f32>(device, &ping_pong[LAUNCHES % 2].whole())?;
    equal(&format!("{LAUNCHES} shuffles of {rows:?}"), &model, &got)
}

/// One recording, submitted again and again, sees what the host writes in between; where a device takes a recording once,
/// it refuses the second time.
fn resubmission(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = random_rows(rng);
    let mut model = rows.ordered();
    let (a, b) = (buffer(device, &model)?, buffer(device, &model)?);
    let (mut order, indices) = order(device, rng, rows.n)?;
    let commands = record(device, "again", |e| {
        e.dispatch(&rows.shuffle(twin, &a, &indices, &b)?)?;
        e.barrier();
        e.copy(&b.whole(), &a.whole())
    })?;
    let submit = || device.submit(QueueKind::Compute, Submit::new(&commands));
    submit()?.wait(PATIENCE)?;
    if !device.info().limits.resubmit {
        return refused("a second submission on a device without resubmission", submit());
    }
    model = rows.shuffled(&model, &order);
    for _ in 0..6 {
        order = data::permutation(rng, rows.n);
        device.write(&indices.whole(), bytemuck::cast_slice(&order))?;
        // Twice without waiting in between.
        let first = submit()?;
        let second = submit()?;
        model = rows.shuffled(&rows.shuffled(&model, &order), &order);
        second.wait(PATIENCE)?;
        first.wait(PATIENCE)?;
        let got = contents::<f32>(device, &a.whole())?;
        equal(&format!("{rows:?} after another two submissions"), &model, &got)?;
    }
    Ok(())
}

/// A launch without rows does nothing, and what stands around it is done.
fn empty_launch(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = random_rows(rng);
    let source = rows.ordered();
    let none = Rows { n: 0, ..rows };
    let (from, to) = (buffer(device, &source)?, buffer(device, &vec![-1.0_f32; source.len()])?);
    let (order, indices) = order(device, rng, rows.n)?;
    let untouched = buffer(device, &[-3.0_f32; 4])?;
    let commands = record(device, "nothing in between", |e| {
        e.dispatch(&none.shuffle(twin, &from, &indices, &untouched)?)?;
        e.barrier();
        e.dispatch(&rows.shuffle(twin, &from, &indices, &to)?)
    })?;
    run(device, QueueKind::Compute, &commands)?;
    equal(
        "what a launch of nothing writes to",
        &[-3.0_f32; 4],
        &contents::<f32>(device, &untouched.whole())?,
    )?;
    let want = rows.shuffled(&source, &order);
    equal(&format!("a shuffle of {rows:?}"), &want, &contents::<f32>(device, &to.whole())?)
}
