//! What the device gives at most, measured in the same run as the kernels.

use bessemer_kernels::ceiling::{ArithmeticCeiling, ReadCeiling, Units};
use serde::Serialize;

use super::super::spread::Spread;
use super::bench::Bench;

/// Rates that no kernel exceeds.
#[derive(Debug, Serialize)]
pub struct Ceilings {
    /// Bytes read a second.
    pub read_bytes_s: Spread,
    /// Floating-point operations a second.
    pub operations_s: Spread,
    /// What made them: `matrix` or `plain`.
    pub units: &'static str,
}

impl Ceilings {
    /// Measures both.
    pub fn measure(bench: &mut Bench, repeat: usize) -> anyhow::Result<Self> {
        let limits = bench.catalog.device().info().limits.clone();
        let real = limits.gpu.is_some_and(|gpu| !gpu.software);
        let workers = bench.catalog.workers();
        let rate = |work: f64, times: Vec<f64>| times.into_iter().map(|us| work / (us * 1e-6)).collect();

        let groups = if real { workers * 8 } else { workers * 4 };
        let arithmetic = ArithmeticCeiling {
            factors: bench.filled(1024, &half_and_half())?,
            out: bench.room(ArithmeticCeiling::out_bytes(groups))?,
            turns: if real { 4096 } else { 100_000 / 64 },
            groups,
        };
        let operations = arithmetic.operations(&bench.catalog);
        let ops = [arithmetic];
        bench.warm_up_with(bench.record(&ops, 2)?);
        let operations_s = Spread::of(rate(operations, bench.time(&bench.record(&ops, 2)?, repeat)?))?;
        let units = match ArithmeticCeiling::units(&bench.catalog) {
            Units::Matrix => "matrix",
            Units::Plain => "plain",
        };

        // Far more than any cache, where there is memory.
        let wanted: u64 = if real { 2 << 30 } else { 128 << 20 };
        let bytes = wanted.min(limits.max_buffer_size).min(limits.memory_budget / 4) as usize / 4096 * 4096;
        let groups = if limits.gpu.is_some() { workers * 16 } else { workers * 4 };
        let read = ReadCeiling {
            x: bench.filled(bytes, &(0..=255).collect::<Vec<u8>>())?,
            out: bench.room(groups * 4)?,
            groups,
        };
        let prepared = bench.record(&[read], 4)?;
        let read_bytes_s = Spread::of(rate(bytes as f64, bench.time(&prepared, repeat)?))?;
        Ok(Self { read_bytes_s, operations_s, units })
    }
}

/// Numbers near a half, as f16 and as f32 alike: what is multiplied neither grows nor becomes denormal.
fn half_and_half() -> Vec<u8> {
    0x3800_3800_u32.to_le_bytes().to_vec()
}
