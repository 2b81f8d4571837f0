//! Adding up what the experts of a row gave.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

use crate::shaders::launch;
use crate::simd::{self, Simd, Task};
use crate::{Catalog, Isa, Kernel, Op, bounds};

/// `out[row] += Σ_j weights[row, j] · y[row * top_k + j]`, added in the order of `j`.
#[derive(Clone, Debug)]
pub struct Combine {
    /// f32 `[rows * top_k, dim]`, by slot.
    pub y: Slice,
    /// f32 `[rows, top_k]`.
    pub weights: Slice,
    /// f32 `[rows, dim]`.
    pub out: Slice,
    /// Rows.
    pub rows: usize,
    /// Choices of a row.
    pub top_k: usize,
    /// Columns.
    pub dim: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    top_k: u32,
}

static KERNEL: Kernel = Kernel { name: "combine", cpu: kernel };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    rows: u32,
    top_k: u32,
    width: u32,
}

impl Combine {
    pub(crate) fn check(&self) -> Result<()> {
        let Self { rows, top_k, dim, .. } = *self;
        bounds::rule("combine", top_k > 0, || "a row needs at least one result".into())?;
        bounds::holds::<f32>("combine", "y", &self.y, &[rows, top_k, dim])?;
        bounds::holds::<f32>("combine", "weights", &self.weights, &[rows, top_k])?;
        bounds::holds::<f32>("combine", "out", &self.out, &[rows, dim])
    }
}

impl Op for Combine {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, top_k, dim, .. } = *self;
        self.check()?;
        let tile_rows = bounds::rows_per_group(rows, dim * top_k, catalog.workers());
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings: vec![
                Binding::read(self.y.clone()),
                Binding::read(self.weights.clone()),
                Binding::write(self.out.clone(), Tiling::by_rows(rows, dim, tile_rows)),
            ],
            params: bytemuck::bytes_of(&Params { top_k: top_k as u32 }).to_vec(),
            groups: line(rows.div_ceil(tile_rows)),
        })
    }

    /// One launch, a thread for four columns of a row where `dim` allows, else for one.
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        const THREADS: usize = 64;
        let Self { rows, top_k, dim, .. } = *self;
        self.check()?;
        bounds::indices("combine", &[rows, top_k, dim])?;
        let (kernel, width) =
            if dim.is_multiple_of(4) { ("combine_vec4", dim / 4) } else { ("combine", dim) };
        let bindings = vec![
            Binding::read(self.y.clone()),
            Binding::read(self.weights.clone()),
            Binding::write_any(self.out.clone()),
        ];
        let params = GpuParams { rows: rows as u32, top_k: top_k as u32, width: width as u32 };
        let down = rows.clamp(1, limits.max_groups[1] as usize);
        let groups = [width.div_ceil(THREADS), down, rows.div_ceil(down)];
        Ok(vec![launch(catalog, kernel, bindings, &params, groups)?])
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let Params { top_k } = invocation.params();
    let (y, weights, mut out) =
        (invocation.input::<f32>(0), invocation.input::<f32>(1), invocation.output(2));
    let (top_k, first) = (top_k as usize, out.first_row());
    for row in 0..out.rows() {
        combine_row(Isa::detect(), y, weights, first + row, top_k, out.row_mut(row));
    }
}

/// Adds to `out` what the choices of row `row` gave.
pub(crate) fn combine_row(isa: Isa, y: &[f32], weights: &[f32], row: usize, top_k: usize, out: &mut [f32]) {
    let (y, weights) = (&y[row * top_k * out.len()..], &weights[row * top_k..][..top_k]);
    simd::run(isa, Row { y, weights, out });
}

/// One row.
struct Row<'a> {
    y: &'a [f32],
    weights: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.out.len();
        for (block, out) in self.out.chunks_mut(S::LANES).enumerate() {
            let mut sum = s.load(out, 0.0);
            for (y, weight) in self.y.chunks_exact(dim).zip(self.weights) {
                let from = block * S::LANES;
                sum = s.fma(s.load(&y[from..dim.min(from + S::LANES)], 0.0), s.splat(*weight), sum);
            }
            s.store(out, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Random;

    #[test]
    fn sums_agree_with_f64() {
        let mut random = Random(8);
        for (top_k, dim) in [(1, 5), (4, 16), (8, 100), (2, 33)] {
            let (y, weights, before) = (random.normal(top_k * dim), random.normal(top_k), random.normal(dim));
            for isa in Isa::all_available() {
                let mut out = before.clone();
                simd::run(isa, Row { y: &y, weights: &weights, out: &mut out });
                for (c, out) in out.iter().enumerate() {
                    let sum: f64 =
                        (0..top_k).map(|j| f64::from(y[j * dim + c]) * f64::from(weights[j])).sum();
                    assert!(
                        (f64::from(*out) - f64::from(before[c]) - sum).abs() < 1e-5,
                        "{isa:?} {top_k} {dim}"
                    );
                }
            }
        }
    }
}
