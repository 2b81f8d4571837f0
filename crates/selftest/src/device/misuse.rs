//! Wrong use is refused with a value, and harms nothing.

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::{BufferDesc, Code, Device, DeviceError, HeapDesc, PipelineDesc, Place, QueueKind, Submit};
use bessemer_kernels::{Catalog, gather::GatherRows, shaders};
use rand::rngs::SmallRng;

use super::{Rows, buffer, contents, order, record, refused};
use crate::{Check, Failure, Outcome, Side, Twin, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "lengths", run: lengths },
    Check { name: "places", run: places },
    Check { name: "overlaps", run: overlaps },
    Check { name: "launches", run: launches },
    Check { name: "transfer_queue", run: transfer_queue },
    Check { name: "other_devices", run: other_devices },
    Check { name: "wrong_code", run: wrong_code },
];

fn lengths(twin: &Twin, _: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let x = buffer(device, &[5_u8; 16])?;
    refused("15 bytes into 16", device.write(&x.whole(), &[0; 15]))?;
    refused("17 bytes from 16", device.read(&x.whole(), &mut [0; 17]))?;
    refused("a slice beyond the end", x.slice(12, 5))?;
    refused("a slice of which the end overflows", x.slice(u64::MAX, 2))?;
    let mut encoder = device.create_encoder("lengths")?;
    refused("a copy of 8 bytes to 4", encoder.copy(&x.slice(0, 8)?, &x.slice(8, 4)?))?;
    equal("the buffer", &[5_u8; 16], &contents(device, &x.whole())?)
}

fn places(twin: &Twin, _: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let alignment = device.info().limits.alignment;
    let heap = device.create_heap(&HeapDesc { label: "check", size: 4 * alignment })?;
    let place = |offset: u64, size: u64| {
        device.create_buffer(&BufferDesc { label: "placed", size, place: Place::Heap(&heap, offset) })
    };
    refused("a buffer beyond its heap", place(alignment, 4 * alignment))?;
    refused("a buffer behind its heap", place(8 * alignment, 1))?;
    refused("a place of which the end overflows", place(u64::MAX / alignment * alignment, 2 * alignment))?;
    if alignment > 1 {
        refused("a place off alignment", place(alignment / 2, 4))?;
    }
    place(0, 4 * alignment).map(drop).map_err(Failure::from)
}

fn overlaps(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = Rows { n: 4, dim: 64 };
    let alignment = device.info().limits.alignment.max(4);
    let values = vec![1.0_f32; (4 * 64 * 4 + alignment as usize) / 4];
    let x = buffer(device, &values)?;
    let (_, indices) = order(device, rng, rows.n)?;
    let part = |offset: u64| x.slice(offset, 4 * 64 * 4);
    let mut encoder = device.create_encoder("overlaps")?;
    let op =
        GatherRows { x: part(0)?, indices: indices.whole(), out: part(alignment)?, n: rows.n, dim: rows.dim };
    let tried = twin
        .launches(Side::Device, &op)
        .and_then(|launches| launches.iter().try_for_each(|launch| encoder.dispatch(launch)));
    refused("a launch that writes what it reads", tried)?;
    refused("a copy onto itself", encoder.copy(&part(0)?, &part(alignment)?))?;
    // The refused commands have left no trace.
    let commands = encoder.finish()?;
    super::run(device, QueueKind::Compute, &commands)?;
    equal("the buffer", &values, &contents(device, &x.whole())?)
}

/// Launches that do not fit their kernel.
fn launches(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = Rows { n: 8, dim: 40 };
    let (from, to) = (buffer(device, &rows.ordered())?, buffer(device, &rows.ordered())?);
    let (order, indices) = order(device, rng, rows.n)?;
    let good = rows.shuffle(twin, &from, &indices, &to)?;
    let mut encoder = device.create_encoder("launches")?;
    let mut huge = good.clone();
    huge.params = vec![0; 129];
    refused("129 bytes of parameters", encoder.dispatch(&huge))?;
    if let Some(limits) = twin.gpu() {
        let mut few = good.clone();
        few.bindings.pop();
        refused("a binding too few", encoder.dispatch(&few))?;
        let mut short = good.clone();
        short.params.pop();
        refused("parameters too short", encoder.dispatch(&short))?;
        if let Some(axis) = limits.max_groups.iter().position(|&most| most < u32::MAX) {
            let mut wide = good.clone();
            wide.groups[axis] = limits.max_groups[axis] + 1;
            refused("more workgroups than the device has", encoder.dispatch(&wide))?;
        }
    } else {
        let mut wide = good.clone();
        wide.groups[0] += 1;
        refused("a workgroup without a tile", encoder.dispatch(&wide))?;
    }
    encoder.dispatch(&good)?;
    let commands = encoder.finish()?;
    super::run(device, QueueKind::Compute, &commands)?;
    equal("the launch after them", &rows.shuffled(&rows.ordered(), &order), &contents(device, &to.whole())?)
}

fn transfer_queue(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let rows = Rows { n: 8, dim: 40 };
    let (from, to) = (buffer(device, &rows.ordered())?, buffer(device, &[-1.0_f32; 320])?);
    let (_, indices) = order(device, rng, rows.n)?;
    let commands = record(device, "kernel", |e| e.dispatch(&rows.shuffle(twin, &from, &indices, &to)?))?;
    refused("a launch on the transfer queue", device.submit(QueueKind::Transfer, Submit::new(&commands)))?;
    equal("its result", &[-1.0_f32; 320], &contents(device, &to.whole())?)
}

/// Buffers, heaps, kernels and commands of another device.
fn other_devices(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let other = CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: None });
    let (ours, theirs) = (buffer(device, &[1_u8; 64])?, buffer(&*other, &[2_u8; 64])?);
    let heap = other.create_heap(&HeapDesc { label: "theirs", size: 4096 })?;
    let place = BufferDesc { label: "placed", size: 64, place: Place::Heap(&heap, 0) };
    refused("a place in another device's heap", device.create_buffer(&place))?;
    refused("writing another device's buffer", device.write(&theirs.whole(), &[0; 64]))?;
    refused("reading another device's buffer", device.read(&theirs.whole(), &mut [0; 64]))?;
    let mut encoder = device.create_encoder("mixed")?;
    refused("copying from another device's buffer", encoder.copy(&theirs.whole(), &ours.whole()))?;
    refused("copying to another device's buffer", encoder.copy(&ours.whole(), &theirs.whole()))?;
    let rows = Rows { n: 4, dim: 4 };
    let (from, to) = (buffer(device, &rows.ordered())?, buffer(device, &rows.ordered())?);
    let (_, indices) = order(device, rng, rows.n)?;
    let good = rows.shuffle(twin, &from, &indices, &to)?;
    let mut launch = good.clone();
    launch.bindings[0].slice = theirs.whole();
    refused("a launch over another device's buffer", encoder.dispatch(&launch))?;
    let op =
        GatherRows { x: from.whole(), indices: indices.whole(), out: to.whole(), n: rows.n, dim: rows.dim };
    let mut launch = good;
    launch.pipeline = bessemer_kernels::Op::cpu(&op, &Catalog::new(other.clone()))?.pipeline;
    refused("a launch of another device's kernel", encoder.dispatch(&launch))?;
    let commands = record(&*other, "theirs", |_| Ok(()))?;
    refused("submitting another device's commands", device.submit(QueueKind::Compute, Submit::new(&commands)))
}

/// A kernel in the form that the device does not run.
fn wrong_code(twin: &Twin, _: &mut SmallRng) -> Outcome {
    fn nothing(_: &mut bessemer_hal::cpu::Invocation<'_>) {}
    let code = match twin.gpu() {
        Some(_) => Code::Cpu(nothing),
        None => match shaders::all().first() {
            Some(shader) => Code::Gpu(shader),
            None => return Err(Failure::wrong("no shader was compiled into this program")),
        },
    };
    match twin.device().create_pipeline(&PipelineDesc { label: "wrong", code }) {
        Err(DeviceError::Pipeline { .. }) => Ok(()),
        other => Err(Failure::wrong(format!("a kernel in the wrong form must be refused, but: {other:?}"))),
    }
}
