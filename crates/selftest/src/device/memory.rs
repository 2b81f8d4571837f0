//! Buffers, heaps, and what the host writes and reads.

use std::time::Duration;

use bessemer_hal::{BufferDesc, Device, DeviceError, Heap, HeapDesc, Place, QueueKind};
use rand::Rng;
use rand::rngs::SmallRng;

use super::{buffer, contents, record, run};
use crate::{Check, Failure, Outcome, Twin, data, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "any_offset", run: any_offset },
    Check { name: "large_transfers", run: large_transfers },
    Check { name: "empty", run: empty },
    Check { name: "staging", run: staging },
    Check { name: "heap_places", run: heap_places },
    Check { name: "aliases", run: aliases },
    Check { name: "heap_outlives_its_handle", run: heap_outlives_its_handle },
    Check { name: "freed_memory_returns", run: freed_memory_returns },
    Check { name: "commands_hold_their_buffers", run: commands_hold_their_buffers },
    Check { name: "too_much", run: too_much },
];

/// Odd ranges of one buffer, written and read in turn, against a copy on the host.
fn any_offset(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let size = rng.random_range(1..300_000);
    let mut model = data::bytes(rng, size);
    let buffer = buffer(device, &model)?;
    for _ in 0..24 {
        let start = rng.random_range(0..size);
        let len = rng.random_range(0..=(size - start).min(70_000));
        let slice = buffer.slice(start as u64, len as u64)?;
        let what = format!("{len} bytes at {start} of {size}");
        if rng.random() {
            let bytes = data::bytes(rng, len);
            device.write(&slice, &bytes)?;
            model[start..start + len].copy_from_slice(&bytes);
        } else {
            equal(&what, &model[start..start + len], &contents::<u8>(device, &slice)?)?;
        }
    }
    equal(&format!("all {size} bytes"), &model, &contents::<u8>(device, &buffer.whole())?)
}

/// More than any staging memory holds at once.
fn large_transfers(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let size = (40 << 20) + rng.random_range(1..10_000);
    let mut bytes = data::bytes(rng, size);
    let buffer = buffer(device, &bytes)?;
    let start = rng.random_range(1..1 << 20);
    let len = size - start - 7;
    bytes[start..start + len].rotate_left(13);
    device.write(&buffer.slice(start as u64, len as u64)?, &bytes[start..start + len])?;
    let got = contents::<u8>(device, &buffer.whole())?;
    // The slices are compared as a whole first: going through them byte by byte takes longer than the transfer.
    if got == bytes { Ok(()) } else { equal(&format!("{size} bytes"), &bytes, &got) }
}

fn empty(twin: &Twin, _: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let none = buffer::<u8>(device, &[])?;
    device.read(&none.whole(), &mut [])?;
    let some = buffer(device, &[7_u8; 8])?;
    device.write(&some.slice(8, 0)?, &[])?;
    device.read(&some.slice(3, 0)?, &mut [])?;
    let commands = record(device, "nothing", |_| Ok(()))?;
    run(device, QueueKind::Compute, &commands)?;
    run(device, QueueKind::Transfer, &commands_for_transfer(twin)?)?;
    equal("8 bytes", &[7_u8; 8], &contents(device, &some.whole())?)
}

/// A second recording of nothing, since a recording may be good for one submission only.
fn commands_for_transfer(twin: &Twin) -> bessemer_hal::Result<bessemer_hal::CommandBuffer> {
    record(twin.device(), "nothing", |_| Ok(()))
}

/// Up and down through memory of the host, on either queue, at any offset.
fn staging(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let size = rng.random_range(1..400_000) * 4;
    let staged = device.create_buffer(&BufferDesc::staging("check", size))?;
    let target = buffer(device, &vec![0_u8; size as usize])?;
    for queue in [QueueKind::Transfer, QueueKind::Compute] {
        let bytes = data::bytes(rng, size as usize);
        let offset = rng.random_range(0..size / 4) * 4;
        device.write(&staged.whole(), &bytes)?;
        let (from, to) = (staged.slice(offset, size - offset)?, target.slice(0, size - offset)?);
        run(device, queue, &record(device, "up", |e| e.copy(&from, &to))?)?;
        equal(&format!("up, {queue:?}"), &bytes[offset as usize..], &contents::<u8>(device, &to)?)?;
        device.write(&staged.whole(), &vec![0; size as usize])?;
        run(device, queue, &record(device, "down", |e| e.copy(&to, &from))?)?;
        equal(&format!("down, {queue:?}"), &bytes[offset as usize..], &contents::<u8>(device, &from)?)?;
    }
    Ok(())
}

fn heap(twin: &Twin, size: u64) -> bessemer_hal::Result<Heap> {
    twin.device().create_heap(&HeapDesc { label: "check", size })
}

/// Buffers side by side in a heap leave each other alone.
fn heap_places(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let alignment = device.info().limits.alignment;
    let sizes: Vec<u64> = (0..rng.random_range(2..12)).map(|_| rng.random_range(1..30_000)).collect();
    let heap = heap(twin, sizes.iter().map(|size| size.next_multiple_of(alignment)).sum())?;
    let mut offset = 0;
    let mut buffers = Vec::new();
    for &size in &sizes {
        let place = Place::Heap(&heap, offset);
        buffers.push(device.create_buffer(&BufferDesc { label: "placed", size, place })?);
        offset += size.next_multiple_of(alignment);
    }
    let filled: Vec<Vec<u8>> = sizes.iter().map(|&size| data::bytes(rng, size as usize)).collect();
    for at in data::permutation(rng, sizes.len()) {
        device.write(&buffers[at as usize].whole(), &filled[at as usize])?;
    }
    for (at, (buffer, want)) in buffers.iter().zip(&filled).enumerate() {
        let what = format!("buffer {at} of {sizes:?} bytes in one heap");
        equal(&what, want, &contents::<u8>(device, &buffer.whole())?)?;
    }
    Ok(())
}

/// Buffers over the same bytes, one after the other, as a workspace uses them.
fn aliases(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let alignment = device.info().limits.alignment;
    let heap = heap(twin, 4 * alignment)?;
    let place = |offset: u64, parts: u64| {
        let size = parts * alignment;
        device.create_buffer(&BufferDesc {
            label: "alias",
            size,
            place: Place::Heap(&heap, offset * alignment),
        })
    };
    let (whole, inner, last) = (place(0, 4)?, place(1, 2)?, place(3, 1)?);
    for round in 0..3 {
        let kept = data::bytes(rng, alignment as usize);
        device.write(&last.whole(), &kept)?;
        for buffer in [&inner, &inner] {
            let bytes = data::bytes(rng, buffer.size() as usize);
            let from = super::buffer(device, &bytes)?;
            let commands = record(device, "into alias", |e| e.copy(&from.whole(), &buffer.whole()))?;
            run(device, QueueKind::Compute, &commands)?;
            equal(
                &format!("inner buffer, round {round}"),
                &bytes,
                &contents::<u8>(device, &buffer.whole())?,
            )?;
        }
        equal("the buffer beside it", &kept, &contents::<u8>(device, &last.whole())?)?;
        let bytes = data::bytes(rng, whole.size() as usize);
        device.write(&whole.whole(), &bytes)?;
        equal("the buffer over all", &bytes, &contents::<u8>(device, &whole.whole())?)?;
    }
    Ok(())
}

fn heap_outlives_its_handle(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let bytes = data::bytes(rng, 5000);
    let buffer = {
        let heap = heap(twin, 8192)?;
        device.create_buffer(&BufferDesc { label: "placed", size: 5000, place: Place::Heap(&heap, 0) })?
    };
    device.write(&buffer.whole(), &bytes)?;
    let _other = heap(twin, 8192)?;
    equal("5000 bytes", &bytes, &contents::<u8>(device, &buffer.whole())?)
}

/// Bytes in use, once what earlier work held has returned: that may take a moment, and nobody waits for it.
fn settled(device: &dyn Device) -> u64 {
    let mut last = device.allocated();
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(5));
        let now = device.allocated();
        if now == last {
            break;
        }
        last = now;
    }
    last
}

fn freed_memory_returns(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let before = settled(device);
    let size = rng.random_range(1 << 20..8 << 20);
    let own = device.create_buffer(&BufferDesc::own("own", size))?;
    let heap = heap(twin, size)?;
    let placed = device.create_buffer(&BufferDesc { label: "placed", size, place: Place::Heap(&heap, 0) })?;
    let during = device.allocated();
    drop((own, heap));
    let held = device.allocated();
    drop(placed);
    let after = settled(device);
    if during >= before + 2 * size && held >= before + size && held < during && after == before {
        return Ok(());
    }
    Err(Failure::wrong(format!(
        "allocated {before} before, {during} with a buffer and a heap of {size} bytes, {held} with a buffer in \
         the heap, {after} after both"
    )))
}

/// The last handle of a buffer may go before the commands that use it run.
fn commands_hold_their_buffers(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    let bytes = data::bytes(rng, 40_000);
    let to = buffer(device, &[0_u8; 40_000])?;
    let commands = {
        let from = buffer(device, &bytes)?;
        record(device, "outlives", |e| e.copy(&from.whole(), &to.whole()))?
    };
    let _over = buffer(device, &[1_u8; 40_000])?;
    run(device, QueueKind::Compute, &commands)?;
    equal("40000 bytes", &bytes, &contents::<u8>(device, &to.whole())?)
}

/// Memory that no machine has is refused with a value, and the device serves on.
fn too_much(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let device = twin.device();
    for size in [1 << 50, u64::MAX] {
        let tried = [
            ("buffer", device.create_buffer(&BufferDesc::own("huge", size)).map(drop)),
            ("heap", device.create_heap(&HeapDesc { label: "huge", size }).map(drop)),
        ];
        for (what, result) in tried {
            match result {
                Err(DeviceError::OutOfMemory { requested, .. }) if requested >= size => {}
                other => {
                    return Err(Failure::wrong(format!(
                        "a {what} of {size} bytes must be refused as out of memory, but: {other:?}"
                    )));
                }
            }
        }
    }
    any_offset(twin, rng)
}
