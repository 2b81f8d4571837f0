//! RMS normalisation: `y = x / √(mean(x²) + eps) · weight`, row by row.
//!
//! - The squares of a row are summed in an order that depends on `dim` alone, so a row's bits do not depend on the rows
//!   beside it.
//! - The result goes out in the form that its readers take, f32 or int8 or *both*: the f32 row never leaves the core's own
//!   cache for the sake of its quantisation.
//! - What the experts of a row gave may be *added first*, where a sparse layer ends and the next one begins: the sum would
//!   otherwise be a launch, and the norm a second one that waits for it.
//!
//! Zhang and Sennrich, *Root Mean Square Layer Normalization*, 2019.

mod gpu;
mod variants;

use std::cell::RefCell;

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};

use self::variants::To;
use crate::linear::{Int8Params, Int8Tiles, check_int8};
use crate::router::{Combine, combine_row};
use crate::simd::{self, Simd, Task};
use crate::{Activations, Catalog, Isa, Kernel, Op, QuantisedRows, bounds};

/// Normalises rows.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// The rows.
    pub x: NormInput,
    /// f32 `[dim]`.
    pub weight: Slice,
    /// The forms in which they go out.
    pub out: NormOutput,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub dim: usize,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// The rows that are normalised.
#[derive(Clone, Debug)]
pub enum NormInput {
    /// f32 `[rows, dim]`.
    Given(Slice),
    /// Those of this combination's `out`, once it has been carried out: the norm does it, and leaves the sums there.
    Combined(Combine),
}

/// The forms in which normalised rows go out.
#[derive(Clone, Debug)]
pub enum NormOutput {
    /// One: `[rows, dim]`.
    One(Activations),
    /// f32, and in int8 what that is.
    Both {
        /// f32 `[rows, dim]`.
        f32: Slice,
        /// `[rows, dim]`.
        int8: QuantisedRows,
    },
}

impl From<Activations> for NormOutput {
    fn from(out: Activations) -> Self {
        Self::One(out)
    }
}

impl NormOutput {
    /// What is written as f32, and what is quantised.
    fn parts(&self) -> (Option<&Slice>, Option<(&QuantisedRows, Int8Params)>) {
        match self {
            Self::One(Activations::F32(out)) => (Some(out), None),
            Self::One(one @ (Activations::Int8(out) | Activations::Int8x2(out))) => {
                (None, Some((out, Int8Params::new(one))))
            }
            Self::Both { f32, int8 } => (Some(f32), Some((int8, Int8Params::one_term(int8)))),
        }
    }

    fn kind(&self) -> To {
        match self {
            Self::One(Activations::F32(_)) => To::F32,
            Self::One(Activations::Int8(_)) => To::Int8,
            Self::One(Activations::Int8x2(_)) => To::Int8x2,
            Self::Both { .. } => To::Both,
        }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    dim: u32,
    eps: f32,
    /// Results that are added to a row first; 0: none.
    top_k: u32,
    /// 1: rows go out as f32.
    f32: u32,
    /// Its terms are 0 where they do not go out as int8.
    int8: Int8Params,
}

static RMS_NORM: Kernel = Kernel { name: "rms_norm", cpu: kernel };
static COMBINE_RMS_NORM: Kernel = Kernel { name: "combine_rms_norm", cpu: kernel };

impl RmsNorm {
    fn check(&self) -> Result<()> {
        let Self { rows, dim, .. } = *self;
        match &self.x {
            NormInput::Given(x) => bounds::holds::<f32>("rms_norm", "x", x, &[rows, dim])?,
            NormInput::Combined(combine) => {
                combine.check()?;
                bounds::rule("rms_norm", (combine.rows, combine.dim) == (rows, dim), || {
                    format!("{rows}×{dim} rows come from a combination of {}×{}", combine.rows, combine.dim)
                })?;
            }
        }
        bounds::holds::<f32>("rms_norm", "weight", &self.weight, &[dim])?;
        let (plain, int8) = self.out.parts();
        if let Some(out) = plain {
            bounds::holds::<f32>("rms_norm", "out", out, &[rows, dim])?;
        }
        match int8 {
            Some((out, params)) => check_int8("rms_norm", out, rows * params.terms(), dim),
            None => Ok(()),
        }
    }
}

impl Op for RmsNorm {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, dim, .. } = *self;
        self.check()?;
        let added = match &self.x {
            NormInput::Given(_) => 0,
            NormInput::Combined(combine) => combine.top_k,
        };
        let tile_rows = bounds::rows_per_group(rows, dim * (added + 1), catalog.workers());
        let tiling = Tiling::by_rows(rows, dim, tile_rows);
        let mut bindings = vec![Binding::read(self.weight.clone())];
        let kernel = match &self.x {
            NormInput::Given(x) => {
                bindings.push(Binding::read(x.clone()));
                &RMS_NORM
            }
            NormInput::Combined(combine) => {
                bindings.push(Binding::write(combine.out.clone(), tiling));
                bindings.extend([&combine.y, &combine.weights].map(|slice| Binding::read(slice.clone())));
                &COMBINE_RMS_NORM
            }
        };
        let (plain, int8) = self.out.parts();
        let mut params = Params {
            dim: dim as u32,
            eps: self.eps,
            top_k: added as u32,
            f32: u32::from(plain.is_some()),
            int8: Int8Params::zeroed(),
        };
        bindings.extend(plain.map(|out| Binding::write(out.clone(), tiling)));
        if let Some((out, int8)) = int8 {
            bindings.extend(int8.bind(out, tiling));
            params.int8 = int8;
        }
        Ok(Dispatch {
            pipeline: catalog.pipeline(kernel)?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: tiling.grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        gpu::launches(self, catalog, limits, scratch)
    }

    fn gpu_scratch(&self, _: &GpuLimits) -> usize {
        gpu::scratch(self)
    }
}

thread_local! {
    /// A row between its normalisation and its quantisation.
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

fn kernel(invocation: &mut Invocation<'_>) {
    let Params { dim, eps, top_k, f32, int8 } = invocation.params();
    let (dim, top_k) = (dim as usize, top_k as usize);
    let weight = invocation.input::<f32>(0);
    let given = if top_k == 0 { invocation.input::<f32>(1) } else { &[] };
    let mut combined =
        (top_k > 0).then(|| (invocation.output::<f32>(1), invocation.input(2), invocation.input(3)));
    let mut next = if top_k == 0 { 2 } else { 4 };
    let mut plain = (f32 == 1).then(|| invocation.output::<f32>(next));
    next += f32 as usize;
    let mut quantised = (int8.terms() > 0).then(|| Int8Tiles::take(invocation, next, int8));
    let (first, rows) = match (&plain, &quantised) {
        (Some(out), _) => (out.first_row(), out.rows()),
        (None, Some(out)) => (out.first_row(), out.rows()),
        (None, None) => return,
    };
    let isa = Isa::detect();
    ROW.with_borrow_mut(|held| {
        held.resize(dim, 0.0);
        for row in 0..rows {
            let x = match &mut combined {
                None => &given[(first + row) * dim..][..dim],
                Some((x, y, weights)) => {
                    let x = x.row_mut(row);
                    combine_row(isa, y, weights, first + row, top_k, x);
                    x
                }
            };
            let normed = match &mut plain {
                Some(out) => out.row_mut(row),
                None => &mut held[..],
            };
            normalise_row(isa, x, weight, eps, normed);
            if let Some(out) = &mut quantised {
                out.write(row, normed);
            }
        }
    });
}

/// One row: `out = x / √(mean(x²) + eps) · weight`.
pub(crate) fn normalise_row(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    simd::run(isa, Row { x, weight, eps, out });
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
