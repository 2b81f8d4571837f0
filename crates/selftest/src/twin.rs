//! An operation on two devices at once: the CPU device, and the device that is checked against it.
//!
//! Kernels for GPUs check no bounds, so the twin watches for them: every buffer has guards around its data, and scratch
//! memory and the memory of results begin as rubbish.

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::{BufferDesc, Device, DeviceError, Dispatch, GpuLimits, QueueKind, Result, Slice, Submit};
use bessemer_kernels::{Catalog, Op};
use bytemuck::Pod;

use crate::Failure;

/// Reaching it means a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes in front of the data and behind it, beside what alignment adds.
const GUARD: u64 = 256;

/// What guards, scratch memory and results hold before a kernel runs: as floats it is −1.7e-20 or so, as halves
/// −0.006, as indices far out of range.
const RUBBISH: u8 = 0x9e;

/// The CPU device and the device that is checked.
#[derive(Debug)]
pub struct Twin {
    cpu: Catalog,
    device: Catalog,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The reference.
    Cpu,
    /// The device that is checked.
    Device,
}

/// The same data on both devices.
#[derive(Clone, Debug)]
pub struct Both(Arc<[Slice; 2]>);

impl Both {
    /// The copy of one device.
    pub fn on(&self, side: Side) -> Slice {
        self.0[side as usize].clone()
    }
}

impl Twin {
    /// Checks `device` against a CPU device of its own.
    pub fn new(device: Arc<dyn Device>) -> Self {
        let cpu = CpuDevice::new(&CpuOptions { threads: Some(2), memory_budget: None });
        Self { cpu: Catalog::new(cpu), device: Catalog::new(device) }
    }

    /// The kernels of one device.
    pub fn catalog(&self, side: Side) -> &Catalog {
        match side {
            Side::Cpu => &self.cpu,
            Side::Device => &self.device,
        }
    }

    /// The device that is checked.
    pub fn device(&self) -> &dyn Device {
        &**self.device.device()
    }

    /// What kernels on the checked device are selected by; `None` when it runs their CPU form.
    pub fn gpu(&self) -> Option<&GpuLimits> {
        self.device.gpu()
    }

    /// `data` on both devices.
    ///
    /// # Errors
    /// When a device has no memory.
    pub fn put<T: Pod>(&self, data: &[T]) -> Result<Both> {
        let make = |catalog: &Catalog| guarded(&**catalog.device(), bytemuck::cast_slice(data));
        Ok(Both(Arc::new([make(&self.cpu)?, make(&self.device)?])))
    }

    /// `count` zeros on both devices.
    ///
    /// # Errors
    /// When a device has no memory.
    pub fn zeros<T: Pod>(&self, count: usize) -> Result<Both> {
        self.put(&vec![T::zeroed(); count])
    }

    /// Room for `count` results on both devices, all rubbish, the same on both: for kernels that must write all of it.
    ///
    /// # Errors
    /// When a device has no memory.
    pub fn rubbish<T: Pod>(&self, count: usize) -> Result<Both> {
        self.put(&vec![RUBBISH; count * size_of::<T>()])
    }

    /// Runs the operation that `build` makes for each device.
    ///
    /// # Errors
    /// When the operation is refused or a device fails.
    pub fn run<O: Op>(&self, build: impl Fn(Side) -> O) -> Result<()> {
        [Side::Cpu, Side::Device].into_iter().try_for_each(|side| self.run_on(side, &build(side)))
    }

    /// Runs an operation on one device and waits for it.
    ///
    /// # Errors
    /// When the operation is refused or the device fails.
    pub fn run_on(&self, side: Side, op: &impl Op) -> Result<()> {
        self.run_launches(side, &self.launches(side, op)?)
    }

    /// Runs launches on one device, one after the other, and waits for them.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run_launches(&self, side: Side, launches: &[Dispatch]) -> Result<()> {
        let device = self.catalog(side).device();
        let mut encoder = device.create_encoder("check")?;
        for launch in launches {
            encoder.dispatch(launch)?;
            encoder.barrier();
        }
        let commands = encoder.finish()?;
        device.submit(QueueKind::Compute, Submit::new(&commands))?.wait(PATIENCE)?;
        Ok(())
    }

    /// The launches of an operation on one device, in order, with scratch memory of their own.
    ///
    /// # Errors
    /// When the operation is refused or there is no memory.
    pub fn launches(&self, side: Side, op: &impl Op) -> Result<Vec<Dispatch>> {
        let catalog = self.catalog(side);
        catalog.launches(op, |bytes| guarded(&**catalog.device(), &vec![RUBBISH; bytes]))
    }

    /// The contents on one device.
    ///
    /// # Errors
    /// When the device fails, or something has written around the data.
    pub fn get<T: Pod>(&self, side: Side, both: &Both) -> Result<Vec<T>, Failure> {
        let (device, slice) = (self.catalog(side).device(), both.on(side));
        let mut bytes = vec![0; slice.buffer().size() as usize];
        device.read(&slice.buffer().whole(), &mut bytes)?;
        let (start, end) = (slice.offset() as usize, (slice.offset() + slice.size()) as usize);
        let guards = bytes.iter().enumerate().filter(|(at, _)| !(start..end).contains(at));
        if let Some((at, byte)) = guards.into_iter().find(|(_, byte)| **byte != RUBBISH) {
            let place = if at < start {
                format!("{} bytes before the data", start - at)
            } else {
                format!("{} bytes behind the data", at - end)
            };
            return Err(Failure::wrong(format!(
                "on {side:?}: the kernel wrote outside of a buffer of {} bytes, {place} (found {byte:#04x})",
                slice.size()
            )));
        }
        let mut data = vec![T::zeroed(); slice.size() as usize / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut data).copy_from_slice(&bytes[start..end]);
        Ok(data)
    }
}

/// `data` in a buffer of its own, with guards around it.
fn guarded(device: &dyn Device, data: &[u8]) -> Result<Slice, DeviceError> {
    let start = GUARD.next_multiple_of(device.info().limits.alignment);
    let size = data.len() as u64;
    let buffer = device.create_buffer(&BufferDesc::own("check", start + size + GUARD))?;
    let mut bytes = vec![RUBBISH; buffer.size() as usize];
    bytes[start as usize..][..data.len()].copy_from_slice(data);
    device.write(&buffer.whole(), &bytes)?;
    buffer.slice(start, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin() -> Twin {
        Twin::new(CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: None }))
    }

    #[test]
    fn data_goes_in_and_out() {
        let twin = twin();
        let both = twin.put(&[1.5_f32, 2.5, 3.5]).unwrap();
        for side in [Side::Cpu, Side::Device] {
            assert_eq!(twin.get::<f32>(side, &both).unwrap(), [1.5, 2.5, 3.5]);
        }
        assert_eq!(twin.get::<u8>(Side::Cpu, &twin.rubbish::<u32>(2).unwrap()).unwrap(), [RUBBISH; 8]);
        assert_eq!(twin.get::<u32>(Side::Device, &twin.zeros::<u32>(0).unwrap()).unwrap(), [] as [u32; 0]);
    }

    #[test]
    fn what_is_written_around_the_data_is_noticed() {
        let twin = twin();
        for at in [GUARD - 1, GUARD + 12, 2 * GUARD + 11] {
            let both = twin.put(&[0_u32; 3]).unwrap();
            let slice = both.on(Side::Device);
            twin.device().write(&slice.buffer().slice(at, 1).unwrap(), &[0]).unwrap();
            assert!(twin.get::<u32>(Side::Cpu, &both).is_ok());
            let message = twin.get::<u32>(Side::Device, &both).unwrap_err().to_string();
            assert!(message.contains("outside of a buffer of 12 bytes"), "{message}");
        }
    }
}
