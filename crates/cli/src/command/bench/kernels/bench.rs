//! Launches of one operation in a row, timed by the device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_hal::{BufferDesc, CommandBuffer, Device, QueueKind, Slice, Submit};
use bessemer_kernels::{Catalog, Op};

/// How long one submission may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A GPU that was idle has lowered its clocks, and raises them only under a heavy load that lasts.
const HEAVY: Duration = Duration::from_millis(400);
/// Then the launches that are measured warm the caches of addresses and instructions up.
const WARM_UP: Duration = Duration::from_millis(20);

/// A device to measure on.
pub struct Bench {
    pub catalog: Catalog,
    /// What raises the clocks, once it is known.
    heavy: Option<Prepared>,
}

/// Launches to be timed together.
pub struct Prepared {
    commands: CommandBuffer,
    launches: usize,
}

impl Bench {
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { catalog: Catalog::new(device), heavy: None }
    }

    /// Runs `heavy` before everything that is measured from now on, if this is a real GPU.
    pub fn warm_up_with(&mut self, heavy: Prepared) {
        if self.catalog.gpu().is_some_and(|gpu| !gpu.software) {
            self.heavy = Some(heavy);
        }
    }

    fn device(&self) -> &Arc<dyn Device> {
        self.catalog.device()
    }

    /// Memory that holds `pattern` over and over.
    pub fn filled(&self, bytes: usize, pattern: &[u8]) -> anyhow::Result<Slice> {
        const PIECE: usize = 8 << 20;
        let slice = self.device().create_buffer(&BufferDesc::own("bench", bytes as u64))?.whole();
        let period = pattern.len().max(1);
        let piece: Vec<u8> = pattern.iter().copied().cycle().take((PIECE / period).max(1) * period).collect();
        let mut at = 0;
        while at < bytes && !piece.is_empty() {
            let size = piece.len().min(bytes - at);
            self.device().write(&slice.slice(at as u64, size as u64)?, &piece[..size])?;
            at += size;
        }
        Ok(slice)
    }

    /// Memory for results, or with contents that do not matter.
    pub fn room(&self, bytes: usize) -> anyhow::Result<Slice> {
        self.filled(bytes, &[0])
    }

    pub fn put<T: bytemuck::NoUninit>(&self, data: &[T]) -> anyhow::Result<Slice> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        self.filled(bytes.len(), bytes)
    }

    /// Records each of `ops`, round and round, until there are `launches`, a barrier behind each.
    pub fn record(&self, ops: &[impl Op], launches: usize) -> anyhow::Result<Prepared> {
        let device = self.device();
        let prepared = ops
            .iter()
            .map(|op| {
                self.catalog.launches(op, |bytes| {
                    Ok(device.create_buffer(&BufferDesc::own("scratch", bytes as u64))?.whole())
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut encoder = device.create_encoder("bench")?;
        for index in 0..launches {
            for dispatch in &prepared[index % prepared.len()] {
                encoder.dispatch(dispatch)?;
                encoder.barrier();
            }
        }
        Ok(Prepared { commands: encoder.finish()?, launches })
    }

    /// Microseconds of one launch, `repeat` times after a warm-up.
    pub fn time(&self, prepared: &Prepared, repeat: usize) -> anyhow::Result<Vec<f64>> {
        if let Some(heavy) = &self.heavy {
            self.run_for(heavy, HEAVY)?;
        }
        self.run_for(prepared, WARM_UP)?;
        (0..repeat).map(|_| self.run(prepared)).collect()
    }

    fn run_for(&self, prepared: &Prepared, time: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        self.run(prepared)?;
        while start.elapsed() < time {
            self.run(prepared)?;
        }
        Ok(())
    }

    fn run(&self, prepared: &Prepared) -> anyhow::Result<f64> {
        let submission = self.device().submit(QueueKind::Compute, Submit::new(&prepared.commands))?;
        let timing = submission.wait(TIMEOUT)?;
        Ok((timing.end_ns - timing.start_ns) as f64 / 1e3 / prepared.launches as f64)
    }
}
