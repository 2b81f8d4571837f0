//! Copies on the device.

use bessemer_hal::QueueKind;
use rand::Rng;
use rand::rngs::SmallRng;

use super::{buffer, contents, record, run};
use crate::{Check, Outcome, Twin, data, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "compute_queue", run: |twin, rng| ranges(twin, rng, QueueKind::Compute, 4) },
    Check { name: "transfer_queue", run: |twin, rng| ranges(twin, rng, QueueKind::Transfer, 4) },
    Check { name: "odd_bytes", run: |twin, rng| ranges(twin, rng, QueueKind::Compute, 1) },
    Check { name: "odd_bytes_transfer", run: |twin, rng| ranges(twin, rng, QueueKind::Transfer, 1) },
    Check { name: "inside_one_buffer", run: inside_one_buffer },
    Check { name: "many_at_once", run: many_at_once },
];

/// Random ranges between two buffers, behind one another, against a copy on the host. Everything is a multiple of
/// `unit` bytes.
fn ranges(twin: &Twin, rng: &mut SmallRng, queue: QueueKind, unit: usize) -> Outcome {
    let device = twin.device();
    let size = rng.random_range(2..50_000) * unit;
    let mut model = [data::bytes(rng, size), data::bytes(rng, size)];
    let buffers = [buffer(device, &model[0])?, buffer(device, &model[1])?];
    let mut copies = Vec::new();
    for _ in 0..16 {
        let source = rng.random_range(0..2);
        let len = rng.random_range(1..=size / unit) * unit;
        let [from, to] = [0, 0].map(|_: i32| rng.random_range(0..=(size - len) / unit) * unit);
        copies.push((source, from, to, len));
        let moved = model[source][from..from + len].to_vec();
        model[1 - source][to..to + len].copy_from_slice(&moved);
    }
    let commands = record(device, "copies", |e| {
        for &(source, from, to, len) in &copies {
            e.copy(
                &buffers[source].slice(from as u64, len as u64)?,
                &buffers[1 - source].slice(to as u64, len as u64)?,
            )?;
            e.barrier();
        }
        Ok(())
    })?;
    run(device, queue, &commands)?;
    for (at, (buffer, want)) in buffers.iter().zip(&model).enumerate() {
        let what = format!("buffer {at} of {size} bytes after copies (source, from, to, bytes) {copies:?}");
        equal(&what, want, &contents::<u8>(device, &buffer.whole())?)?;
    }
    Ok(())
}

fn inside_one_buffer(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let half = rng.random_range(1..20_000) * 4;
    let bytes = data::bytes(rng, 2 * half);
    let buffer = buffer(device, &bytes)?;
    let (low, high) = (buffer.slice(0, half as u64)?, buffer.slice(half as u64, half as u64)?);
    run(device, QueueKind::Compute, &record(device, "within", |e| e.copy(&low, &high))?)?;
    let want = [&bytes[..half], &bytes[..half]].concat();
    equal(&format!("{half} bytes behind themselves"), &want, &contents::<u8>(device, &buffer.whole())?)
}

/// Copies without barriers into ranges that touch but do not overlap.
fn many_at_once(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let (parts, len) = (rng.random_range(2..200), 4 * rng.random_range(1..300));
    let bytes = data::bytes(rng, parts * len);
    let (from, to) = (buffer(device, &bytes)?, buffer(device, &vec![0_u8; parts * len])?);
    let order = data::permutation(rng, parts);
    let commands = record(device, "scattered", |e| {
        for (at, &part) in order.iter().enumerate() {
            let slice = |part: usize| ((part * len) as u64, len as u64);
            let ((source, size), (target, _)) = (slice(at), slice(part as usize));
            e.copy(&from.slice(source, size)?, &to.slice(target, size)?)?;
        }
        Ok(())
    })?;
    run(device, QueueKind::Transfer, &commands)?;
    let mut want = vec![0; parts * len];
    for (at, &part) in order.iter().enumerate() {
        want[part as usize * len..][..len].copy_from_slice(&bytes[at * len..][..len]);
    }
    equal(&format!("{parts} parts of {len} bytes"), &want, &contents::<u8>(device, &to.whole())?)
}
