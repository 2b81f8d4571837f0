//! The device itself: memory, copies, order, queues, and refusals.
//!
//! The one kernel that these checks launch picks rows ([`GatherRows`]): it moves data without changing it, and shuffles
//! do not commute, so a launch that is lost, doubled or out of order shows in the result.

mod copies;
mod memory;
mod misuse;
mod order;
mod queues;

use bessemer_hal::{
    Buffer, BufferDesc, CommandBuffer, Device, DeviceError, Dispatch, Encoder, QueueKind, Result, Slice,
    Submit,
};
use bessemer_kernels::gather::GatherRows;
use bytemuck::Pod;
use rand::rngs::SmallRng;

use crate::twin::PATIENCE;
use crate::{Check, Failure, Outcome, Side, Twin, data};

/// What is checked of a device, and the checks.
pub fn subjects() -> Vec<(&'static str, &'static [Check])> {
    vec![
        ("memory", memory::CHECKS),
        ("copies", copies::CHECKS),
        ("order", order::CHECKS),
        ("queues", queues::CHECKS),
        ("misuse", misuse::CHECKS),
    ]
}

/// A buffer of its own with `data` in it.
fn buffer<T: Pod>(device: &dyn Device, data: &[T]) -> Result<Buffer> {
    let bytes: &[u8] = bytemuck::cast_slice(data);
    let buffer = device.create_buffer(&BufferDesc::own("check", bytes.len() as u64))?;
    device.write(&buffer.whole(), bytes)?;
    Ok(buffer)
}

fn contents<T: Pod>(device: &dyn Device, slice: &Slice) -> Result<Vec<T>> {
    let mut data = vec![T::zeroed(); slice.size() as usize / size_of::<T>()];
    device.read(slice, bytemuck::cast_slice_mut(&mut data))?;
    Ok(data)
}

fn record(
    device: &dyn Device,
    label: &str,
    body: impl FnOnce(&mut dyn Encoder) -> Result<()>,
) -> Result<CommandBuffer> {
    let mut encoder = device.create_encoder(label)?;
    body(&mut *encoder)?;
    encoder.finish()
}

/// Runs commands alone, to the end.
fn run(device: &dyn Device, queue: QueueKind, commands: &CommandBuffer) -> Result<()> {
    device.submit(queue, Submit::new(commands))?.wait(PATIENCE).map(|_| ())
}

/// The number of rows that a shuffle moves, and their width.
#[derive(Clone, Copy, Debug)]
struct Rows {
    n: usize,
    dim: usize,
}

impl Rows {
    /// Rows in order: row `i` holds numbers from `i · dim` on. All are exact.
    fn ordered(self) -> Vec<f32> {
        (0..self.n * self.dim).map(|i| i as f32).collect()
    }

    /// The launch that puts row `order[i]` of `from` at row `i` of `to`.
    fn shuffle(self, twin: &Twin, from: &Buffer, order: &Buffer, to: &Buffer) -> Result<Dispatch> {
        let op =
            GatherRows { x: from.whole(), indices: order.whole(), out: to.whole(), n: self.n, dim: self.dim };
        let mut launches = twin.launches(Side::Device, &op)?;
        match (launches.pop(), launches.is_empty()) {
            (Some(launch), true) => Ok(launch),
            _ => Err(DeviceError::Usage("a gather is one launch".into())),
        }
    }

    /// What [`Rows::shuffle`] should make of `from`.
    fn shuffled(self, from: &[f32], order: &[u32]) -> Vec<f32> {
        order.iter().flat_map(|&row| &from[row as usize * self.dim..][..self.dim]).copied().collect()
    }
}

/// A random order of `n` rows, on the host and in a buffer.
fn order(device: &dyn Device, rng: &mut SmallRng, n: usize) -> Result<(Vec<u32>, Buffer)> {
    let order = data::permutation(rng, n);
    let buffer = buffer(device, &order)?;
    Ok((order, buffer))
}

/// The call must have been refused as wrong use.
fn refused<T>(what: &str, result: Result<T>) -> Outcome {
    match result {
        Err(DeviceError::Usage(_)) => Ok(()),
        Err(other) => Err(Failure::wrong(format!("{what}: refused as wrong use, but got: {other}"))),
        Ok(_) => Err(Failure::wrong(format!("{what}: must be refused, but was accepted"))),
    }
}
