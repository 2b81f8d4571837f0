//! Small kernels and shorthands that the tests of the devices share.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::cpu::{CpuDevice, CpuKernel, CpuOptions, Invocation};
use bessemer_hal::*;

/// Long enough that reaching it means a hang.
pub const LONG: Duration = Duration::from_secs(60);

/// A number of repetitions: `few` under an interpreter, which is a thousand times slower.
pub const fn repeat(many: usize, few: usize) -> usize {
    if cfg!(miri) { few } else { many }
}

pub fn cpu(threads: usize) -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { threads: Some(threads), memory_budget: Some(1 << 30) })
}

/// `x[i] += 1` on the tile of binding 0.
pub fn increment(inv: &mut Invocation<'_>) {
    let mut tile = inv.output::<u32>(0);
    for row in 0..tile.rows() {
        tile.row_mut(row).iter_mut().for_each(|x| *x += 1);
    }
}

/// Writes `group · 1 000 000 + row · 1 000 + col`, with row and column of the whole matrix.
pub fn stamp(inv: &mut Invocation<'_>) {
    let group = inv.group() as u32;
    let mut tile = inv.output::<u32>(0);
    let (first_row, first_col) = (tile.first_row(), tile.first_col());
    for row in 0..tile.rows() {
        for (col, x) in tile.row_mut(row).iter_mut().enumerate() {
            *x = group * 1_000_000 + (first_row + row) as u32 * 1_000 + (first_col + col) as u32;
        }
    }
}

/// `out = in · factor + 1`, element by element, with `factor` as its parameter. One row.
pub fn scale(inv: &mut Invocation<'_>) {
    let factor: u32 = inv.params();
    let input = inv.input::<u32>(1);
    let mut out = inv.output::<u32>(0);
    let from = out.first_col();
    for (col, x) in out.row_mut(0).iter_mut().enumerate() {
        *x = input[from + col].wrapping_mul(factor).wrapping_add(1);
    }
}

/// Fails in one workgroup of several.
pub fn fail(inv: &mut Invocation<'_>) {
    assert!(inv.group() != 3, "workgroup 3 went wrong");
}

/// Takes some milliseconds.
pub fn slow(inv: &mut Invocation<'_>) {
    std::thread::sleep(Duration::from_millis(50));
    increment(inv);
}

pub fn pipeline(device: &dyn Device, label: &'static str, cpu: CpuKernel) -> Pipeline {
    device.create_pipeline(&PipelineDesc { label, code: Code::Cpu(cpu) }).unwrap()
}

/// A buffer of `u32`.
pub fn buffer(device: &dyn Device, values: &[u32]) -> Buffer {
    let buffer = device.create_buffer(&BufferDesc::own("values", values.len() as u64 * 4)).unwrap();
    put(device, &buffer, values);
    buffer
}

pub fn put(device: &dyn Device, buffer: &Buffer, values: &[u32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    device.write(&buffer.whole(), &bytes).unwrap();
}

pub fn get(device: &dyn Device, buffer: &Buffer) -> Vec<u32> {
    let mut bytes = vec![0; buffer.size() as usize];
    device.read(&buffer.whole(), &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_ne_bytes(b.try_into().unwrap())).collect()
}

/// A launch over all of `buffer` as one row, in tiles of `tile` elements.
pub fn over_row(pipeline: &Pipeline, buffer: &Buffer, tile: usize) -> Dispatch {
    let tiling = Tiling::by_cols(1, buffer.size() as usize / 4, tile);
    Dispatch {
        pipeline: pipeline.clone(),
        bindings: vec![Binding::write(buffer.whole(), tiling)],
        params: vec![],
        groups: tiling.grid(),
    }
}

/// A launch of [`scale`].
pub fn scaling(pipeline: &Pipeline, from: &Slice, to: &Slice, factor: u32, tile: usize) -> Dispatch {
    let tiling = Tiling::by_cols(1, to.size() as usize / 4, tile);
    Dispatch {
        pipeline: pipeline.clone(),
        bindings: vec![Binding::write(to.clone(), tiling), Binding::read(from.clone())],
        params: factor.to_ne_bytes().to_vec(),
        groups: tiling.grid(),
    }
}

pub fn record(device: &dyn Device, label: &str, body: impl FnOnce(&mut dyn Encoder)) -> CommandBuffer {
    let mut encoder = device.create_encoder(label).unwrap();
    body(&mut *encoder);
    encoder.finish().unwrap()
}

pub fn run(device: &dyn Device, commands: &CommandBuffer) -> Result<Timing> {
    device.submit(QueueKind::Compute, Submit::new(commands)).unwrap().wait(LONG)
}

/// The text of a [`DeviceError::Usage`].
pub fn usage<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(DeviceError::Usage(rule)) => rule,
        other => panic!("expected wrong use, got {other:?}"),
    }
}
