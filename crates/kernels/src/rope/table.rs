//! Cosines and sines for the positions of one step.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

use crate::shaders::{by_rows, launch};
use crate::{Catalog, Kernel, Op, bounds};

/// Computes, for each row, `rot / 2` cosines and then `rot / 2` sines.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// u32 `[rows]`.
    pub positions: Slice,
    /// f32 `[rot / 2]`: see [`super::inv_freq`].
    pub inv_freq: Slice,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f32,
    /// f32 `[rows, rot]`.
    pub out: Slice,
    /// Rows.
    pub rows: usize,
    /// Rotated columns of a head; even.
    pub rot: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    attention_factor: f32,
}

static KERNEL: Kernel = Kernel { name: "rope_table", cpu: kernel };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    rows: u32,
    half: u32,
    attention_factor: f32,
}

impl RopeTable {
    fn check(&self) -> Result<()> {
        let Self { rows, rot, .. } = *self;
        bounds::holds::<u32>("rope_table", "positions", &self.positions, &[rows])?;
        bounds::holds::<f32>("rope_table", "inv_freq", &self.inv_freq, &[rot / 2])?;
        bounds::holds::<f32>("rope_table", "out", &self.out, &[rows, rot])?;
        bounds::rule("rope_table", rot.is_multiple_of(2), || format!("rot must be even, not {rot}"))
    }
}

impl Op for RopeTable {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, rot, .. } = *self;
        self.check()?;
        let tile_rows = bounds::rows_per_group(rows, rot * 8, catalog.workers());
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings: vec![
                Binding::read(self.positions.clone()),
                Binding::read(self.inv_freq.clone()),
                Binding::write(self.out.clone(), Tiling::by_rows(rows, rot, tile_rows)),
            ],
            params: bytemuck::bytes_of(&Params { attention_factor: self.attention_factor }).to_vec(),
            groups: line(rows.div_ceil(tile_rows)),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        let half = self.rot / 2;
        let bindings = vec![
            Binding::read(self.positions.clone()),
            Binding::read(self.inv_freq.clone()),
            Binding::write_any(self.out.clone()),
        ];
        let params =
            GpuParams { rows: self.rows as u32, half: half as u32, attention_factor: self.attention_factor };
        let groups = by_rows(half.div_ceil(64), self.rows);
        Ok(vec![launch(catalog, "rope_table", bindings, &params, groups)?])
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let Params { attention_factor } = invocation.params();
    let (positions, inv_freq) = (invocation.input::<u32>(0), invocation.input::<f32>(1));
    let mut out = invocation.output(2);
    for (row, &position) in (0..out.rows()).zip(positions.iter().skip(out.first_row())) {
        fill_row(position, inv_freq, attention_factor, out.row_mut(row));
    }
}

/// One row of the table.
pub(super) fn fill_row(position: u32, inv_freq: &[f32], attention_factor: f32, out: &mut [f32]) {
    let (cos, sin) = out.split_at_mut(out.len() / 2);
    for ((cos, sin), inv_freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
        let (s, c) = sin_cos(f64::from(position as f32 * inv_freq));
        (*cos, *sin) = (c as f32 * attention_factor, s as f32 * attention_factor);
    }
}

/// Sine and cosine for angles from 0 to 4e9, with an error below 1e-9 up to 1e6 (and 1e-6 above): our own, so that all
/// systems give the same bits, and free of branches, so that it becomes vector code.
#[inline(always)]
fn sin_cos(angle: f64) -> (f64, f64) {
    use std::f64::consts::FRAC_2_PI;
    // π/2 in two parts; products of the first, which has 33 bits, are exact for turns below 2^20.
    const HIGH: f64 = f64::from_bits(0x3ff9_21fb_5440_0000);
    const LOW: f64 = 6.077_100_506_506_192e-11;
    const ALIGN: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52: adding it rounds to an integer, kept in the low bits.
    let shifted = angle * FRAC_2_PI + ALIGN;
    let turns = shifted - ALIGN;
    let quadrant = shifted.to_bits() & 3;
    let r = (angle - turns * HIGH) - turns * LOW;
    let r2 = r * r;
    // Taylor series: |r| ≤ π/4, the first term left out is below 4e-12.
    let sin = r + r
        * r2
        * (-1.0 / 6.0
            + r2 * (1.0 / 120.0 + r2 * (-1.0 / 5040.0 + r2 * (1.0 / 362_880.0 - r2 * (1.0 / 39_916_800.0)))));
    let cos = 1.0
        + r2 * (-0.5
            + r2 * (1.0 / 24.0
                + r2 * (-1.0 / 720.0
                    + r2 * (1.0 / 40_320.0 + r2 * (-1.0 / 3_628_800.0 + r2 * (1.0 / 479_001_600.0))))));
    let (s, c) = if quadrant & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let negative = |flag: bool, x: f64| if flag { -x } else { x };
    (negative(quadrant & 2 != 0, s), negative((quadrant + 1) & 2 != 0, c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Random;

    #[test]
    fn sines_are_accurate_at_large_angles() {
        let mut random = Random(2);
        for limit in [1.0, 100.0, 1e4, 1e6] {
            for _ in 0..20_000 {
                let angle = f64::from((random.next() as f64 / u64::MAX as f64 * limit) as f32);
                let (s, c) = sin_cos(angle);
                assert!((s - angle.sin()).abs() < 1e-9 && (c - angle.cos()).abs() < 1e-9, "{angle}");
            }
        }
        let (s, c) = sin_cos(4e9);
        assert!((s - 4e9f64.sin()).abs() < 1e-6 && (c - 4e9f64.cos()).abs() < 1e-6);
    }
}
