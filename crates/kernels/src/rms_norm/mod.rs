//! RMS normalisation: `y = x / √(mean(x²) + eps) · weight`, row by row.
//!
//! - The squares of a row are summed in an order that depends on `dim` alone, so a row's bits do not depend on the rows
//!   beside it.
//! - The result goes out as f32, or is quantised at once for the integer dot products of the linear layer that follows:
//!   the f32 row never leaves the core's own cache.
//!
//! Zhang and Sennrich, *Root Mean Square Layer Normalization*, 2019.

mod held;

use std::cell::RefCell;

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, DeviceError, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

use crate::linear::{Int8RowMut, Quantise, quantise_row};
use crate::shaders::{by_rows, launch};
use crate::simd::{self, Simd, Task};
use crate::{Activations, Catalog, Isa, Kernel, Op, QuantisedRows, bounds};

/// Normalises each row of `x`.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// f32 `[rows, dim]`.
    pub x: Slice,
    /// f32 `[dim]`.
    pub weight: Slice,
    /// `[rows, dim]`.
    pub out: Activations,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub dim: usize,
    /// Added to the mean of the squares.
    pub eps: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    dim: u32,
    eps: f32,
    group: u32,
}

static F32: Kernel = Kernel { name: "rms_norm_f32", cpu: to_f32 };
static INT8: Kernel = Kernel { name: "rms_norm_int8", cpu: to_int8 };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    rows: u32,
    /// Columns, or vectors of four of them.
    width: u32,
    eps: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuInt8Params {
    row: GpuParams,
    /// Vectors of four columns that share a scale.
    lanes: u32,
}

impl RmsNorm {
    fn check(&self) -> Result<()> {
        let Self { rows, dim, .. } = *self;
        bounds::holds::<f32>("rms_norm", "x", &self.x, &[rows, dim])?;
        bounds::holds::<f32>("rms_norm", "weight", &self.weight, &[dim])?;
        match &self.out {
            Activations::F32(out) => bounds::holds::<f32>("rms_norm", "out", out, &[rows, dim]),
            Activations::Int8x2(_) => Err(bounds::two_terms("rms_norm")),
            Activations::Int8(QuantisedRows { codes, scales, sums, group }) => {
                let group = *group;
                bounds::rule("rms_norm", matches!(group, 32 | 64) && dim.is_multiple_of(group), || {
                    format!(
                        "the group of quantised rows must be 32 or 64 and divide dim ({dim}), not {group}"
                    )
                })?;
                let groups = dim / group;
                bounds::holds::<i8>("rms_norm", "out.codes", codes, &[rows, dim])?;
                bounds::holds::<f32>("rms_norm", "out.scales", scales, &[rows, groups])?;
                bounds::holds::<i32>("rms_norm", "out.sums", sums, &[rows, groups])
            }
        }
    }

    /// Vectors of four columns that a thread of the GPU's kernel holds; `None` where no variant holds a row.
    fn held(&self) -> Option<usize> {
        let fits = |held: &usize| self.dim.is_multiple_of(4) && self.dim <= held * 1024;
        held::HELD.into_iter().find(fits)
    }

    /// f32 results on a GPU.
    fn gpu_f32(&self, catalog: &Catalog, out: &Slice) -> Result<Dispatch> {
        let bindings = vec![
            Binding::read(self.x.clone()),
            Binding::read(self.weight.clone()),
            Binding::write_any(out.clone()),
        ];
        let (name, width) = match self.held() {
            Some(held) => (format!("rms_norm_f32_{held}"), self.dim / 4),
            None => ("rms_norm_any".into(), self.dim),
        };
        let params = GpuParams { rows: self.rows as u32, width: width as u32, eps: self.eps };
        launch(catalog, &name, bindings, &params, by_rows(1, self.rows))
    }
}

impl Op for RmsNorm {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, dim, .. } = *self;
        self.check()?;
        let tile_rows = bounds::rows_per_group(rows, dim, catalog.workers());
        let mut bindings = vec![Binding::read(self.x.clone()), Binding::read(self.weight.clone())];
        let (kernel, params) = match &self.out {
            Activations::F32(out) => {
                bindings.push(Binding::write(out.clone(), Tiling::by_rows(rows, dim, tile_rows)));
                (&F32, Params { dim: dim as u32, eps: self.eps, group: 0 })
            }
            Activations::Int8(out) | Activations::Int8x2(out) => {
                let groups = dim / out.group;
                bindings.push(Binding::write(out.codes.clone(), Tiling::by_rows(rows, dim, tile_rows)));
                bindings.push(Binding::write(out.scales.clone(), Tiling::by_rows(rows, groups, tile_rows)));
                bindings.push(Binding::write(out.sums.clone(), Tiling::by_rows(rows, groups, tile_rows)));
                (&INT8, Params { dim: dim as u32, eps: self.eps, group: out.group as u32 })
            }
        };
        Ok(Dispatch {
            pipeline: catalog.pipeline(kernel)?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: line(rows.div_ceil(tile_rows)),
        })
    }

    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        let out = match &self.out {
            Activations::F32(out) => return Ok(vec![self.gpu_f32(catalog, out)?]),
            Activations::Int8(out) | Activations::Int8x2(out) => out,
        };
        let Some(held) = self.held() else {
            let x = scratch.ok_or_else(|| DeviceError::Usage("rms_norm: no scratch memory".into()))?;
            let quantise = Quantise { x: x.clone(), out: self.out.clone(), rows: self.rows, dim: self.dim };
            let mut launches = vec![self.gpu_f32(catalog, x)?];
            launches.extend(quantise.gpu(catalog, limits, None)?);
            return Ok(launches);
        };
        let bindings = vec![
            Binding::read(self.x.clone()),
            Binding::read(self.weight.clone()),
            Binding::write_any(out.codes.clone()),
            Binding::write_any(out.scales.clone()),
            Binding::write_any(out.sums.clone()),
        ];
        let row = GpuParams { rows: self.rows as u32, width: self.dim as u32 / 4, eps: self.eps };
        let params = GpuInt8Params { row, lanes: out.group as u32 / 4 };
        let name = format!("rms_norm_int8_{held}");
        Ok(vec![launch(catalog, &name, bindings, &params, by_rows(1, self.rows))?])
    }

    /// Rows too long for one launch are normalised there and quantised by a second.
    fn gpu_scratch(&self, _: &GpuLimits) -> usize {
        match self.out {
            Activations::Int8(_) if self.held().is_none() => 4 * self.rows * self.dim,
            _ => 0,
        }
    }
}

fn to_f32(invocation: &mut Invocation<'_>) {
    let Params { dim, eps, .. } = invocation.params();
    let (x, weight, mut out) = (invocation.input::<f32>(0), invocation.input(1), invocation.output(2));
    let isa = Isa::detect();
    for (row, x) in (0..out.rows()).zip(x.chunks_exact(dim as usize).skip(out.first_row())) {
        simd::run(isa, Row { x, weight, eps, out: out.row_mut(row) });
    }
}

thread_local! {
    /// A row between its normalisation and its quantisation.
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

fn to_int8(invocation: &mut Invocation<'_>) {
    let Params { dim, eps, group } = invocation.params();
    let (x, weight) = (invocation.input::<f32>(0), invocation.input(1));
    let mut codes = invocation.output(2);
    let (mut scales, mut sums) = (invocation.output(3), invocation.output(4));
    let isa = Isa::detect();
    ROW.with_borrow_mut(|normed| {
        normed.resize(dim as usize, 0.0);
        for (row, x) in (0..codes.rows()).zip(x.chunks_exact(dim as usize).skip(codes.first_row())) {
            simd::run(isa, Row { x, weight, eps, out: normed });
            let (codes, scales, sums) = (codes.row_mut(row), scales.row_mut(row), sums.row_mut(row));
            let quantised = quantise_row(isa, normed, group as usize, Int8RowMut { codes, scales, sums });
            debug_assert!(quantised.is_ok(), "the dispatch checked the shapes");
        }
    });
}

/// One row.
struct Row<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Task for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = s.splat(inverse_rms(s, self.x, self.eps));
        let columns =
            self.out.chunks_mut(S::LANES).zip(self.x.chunks(S::LANES)).zip(self.weight.chunks(S::LANES));
        for ((out, x), weight) in columns {
            s.store(out, s.mul(s.mul(s.load(x, 0.0), scale), s.load(weight, 0.0)));
        }
    }
}

/// Normalises `x` where it stands.
#[inline(always)]
pub(crate) fn in_place<S: Simd>(s: S, x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = s.splat(inverse_rms(s, x, eps));
    for (x, weight) in x.chunks_mut(S::LANES).zip(weight.chunks(S::LANES)) {
        let y = s.mul(s.mul(s.load(x, 0.0), scale), s.load(weight, 0.0));
        s.store(x, y);
    }
}

/// `1 / √(mean(x²) + eps)`.
#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    // Four sums: one alone would wait for each addition before it starts the next.
    let mut sums = [s.splat(0.0); 4];
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for block in &mut blocks {
        for (sum, x) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            let x = s.load(x, 0.0);
            *sum = s.fma(x, x, *sum);
        }
    }
    for (sum, x) in sums.iter_mut().zip(blocks.remainder().chunks(S::LANES)) {
        let x = s.load(x, 0.0);
        *sum = s.fma(x, x, *sum);
    }
    let sum = s.reduce_add(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Golden, Random};

    fn norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        for (x, out) in x.chunks(weight.len()).zip(out.chunks_mut(weight.len())) {
            simd::run(isa, Row { x, weight, eps, out });
        }
        out
    }

    #[test]
    fn agrees_with_the_oracle() {
        let golden = Golden::open("rms_norm");
        for case in golden.cases() {
            let key = case["key"].as_str().unwrap();
            let [x, weight, y] = ["x", "weight", "y"].map(|name| golden.f32(&format!("{key}.{name}")));
            for isa in Isa::all_available() {
                let out = norm(isa, &x, &weight, case["eps"].as_f64().unwrap() as f32);
                let worst = out.iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 1e-5, "{key} {isa:?}: off by {worst}");
            }
        }
    }

    #[test]
    fn odd_widths_agree_with_f64() {
        let mut random = Random(3);
        for dim in [1, 7, 15, 16, 17, 63, 64, 65, 100, 1000, 4099] {
            let (x, weight) = (random.normal(2 * dim), random.normal(dim));
            for isa in Isa::all_available() {
                let out = norm(isa, &x, &weight, 1e-6);
                for (x, out) in x.chunks(dim).zip(out.chunks(dim)) {
                    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / dim as f64;
                    for ((&x, &w), &out) in x.iter().zip(&weight).zip(out) {
                        let y = f64::from(x) / (mean + 1e-6).sqrt() * f64::from(w);
                        assert!((f64::from(out) - y).abs() <= 1e-6 * y.abs().max(1.0), "{isa:?} {dim}");
                    }
                }
            }
        }
    }
}
