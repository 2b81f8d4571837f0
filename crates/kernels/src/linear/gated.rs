//! The gate between the two halves of a feed-forward layer: `y = act(gate) · up`, as f32 or int8.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};

use super::gpu::rowwise;
use super::int8_tiles::Int8Params;
use super::ops::{broken, check_int8};
use super::quantise::{Int8RowMut, quantise_row};
use crate::simd::{self, Simd, Task};
use crate::{Activations, Catalog, Isa, Kernel, Op, View, bounds};

/// What a gate is passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateActivation {
    /// `x / (1 + e^−x)`.
    Silu,
    /// The tanh form of GELU: `x / (1 + e^−2u)`, `u = √(2/π) · (x + 0.044715 x³)`.
    GeluTanh,
}

/// `out[r][i] = act(gate[r][i]) · up[r][i]`.
#[derive(Clone, Debug)]
pub struct Gated {
    /// f32 `[rows, dim]`.
    pub gate: View,
    /// f32 `[rows, dim]`; often the other half of the gate's matrix.
    pub up: View,
    /// `[rows, dim]`.
    pub out: Activations,
    /// Rows.
    pub rows: usize,
    /// Columns of the result.
    pub dim: usize,
    /// What gates are passed through.
    pub activation: GateActivation,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    dim: u32,
    activation: u32,
    /// Columns that share an int8 scale; unused for f32.
    group: u32,
    gate: Columns,
    up: Columns,
}

/// Where the rows of an operand lie in its matrix.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Columns {
    stride: u32,
    offset: u32,
}

impl Columns {
    fn of(view: &View) -> Self {
        Self { stride: view.stride as u32, offset: view.offset as u32 }
    }

    fn row(self, x: &[f32], row: usize, dim: usize) -> &[f32] {
        &x[row * self.stride as usize + self.offset as usize..][..dim]
    }
}

static TO_F32: Kernel = Kernel { name: "gated_f32", cpu: to_f32 };
static TO_INT8: Kernel = Kernel { name: "gated_int8", cpu: to_int8 };

impl Gated {
    fn check(&self) -> Result<()> {
        let Self { rows, dim, .. } = *self;
        for (name, view) in [("gate", &self.gate), ("up", &self.up)] {
            bounds::view("gated", name, view, rows, dim)?;
        }
        match &self.out {
            Activations::F32(out) => bounds::holds::<f32>("gated", "out", out, &[rows, dim]),
            Activations::Int8x2(_) => Err(bounds::two_terms("gated")),
            Activations::Int8(out) => check_int8("gated", out, rows, dim),
        }
    }
}

impl Op for Gated {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, dim, .. } = *self;
        self.check()?;
        let tile_rows = bounds::rows_per_group(rows, 2 * dim, catalog.workers());
        let activation = u32::from(self.activation == GateActivation::GeluTanh);
        let mut params = Params {
            dim: dim as u32,
            activation,
            group: 0,
            gate: Columns::of(&self.gate),
            up: Columns::of(&self.up),
        };
        let mut bindings = vec![Binding::read(self.gate.slice.clone()), Binding::read(self.up.slice.clone())];
        let tiling = Tiling::by_rows(rows, dim, tile_rows);
        let kernel = match &self.out {
            Activations::F32(out) => {
                bindings.push(Binding::write(out.clone(), tiling));
                &TO_F32
            }
            Activations::Int8(out) | Activations::Int8x2(out) => {
                bindings.extend(Int8Params::new(&self.out).bind(out, tiling));
                params.group = out.group as u32;
                &TO_INT8
            }
        };
        Ok(Dispatch {
            pipeline: catalog.pipeline(kernel)?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: tiling.grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        Ok(vec![rowwise::gated(self, catalog)?])
    }
}

fn activation(params: Params) -> GateActivation {
    if params.activation == 1 { GateActivation::GeluTanh } else { GateActivation::Silu }
}

fn to_f32(invocation: &mut Invocation<'_>) {
    let params: Params = invocation.params();
    let dim = params.dim as usize;
    let (gates, ups) = (invocation.input::<f32>(0), invocation.input::<f32>(1));
    let mut out = invocation.output::<f32>(2);
    let first = out.first_row();
    for row in 0..out.rows() {
        let (gate, up) = (params.gate.row(gates, first + row, dim), params.up.row(ups, first + row, dim));
        gate_row(Isa::detect(), activation(params), gate, up, out.row_mut(row));
    }
}

/// Columns that are kept as f32 at a time on their way to int8: whole groups, in the L1 cache.
const SEGMENT: usize = 512;

fn to_int8(invocation: &mut Invocation<'_>) {
    let params: Params = invocation.params();
    let (dim, group) = (params.dim as usize, params.group.max(32) as usize);
    let (gates, ups) = (invocation.input::<f32>(0), invocation.input::<f32>(1));
    let mut codes = invocation.output::<i8>(2);
    let (mut scales, mut sums) = (invocation.output::<f32>(3), invocation.output::<i32>(4));
    let first = codes.first_row();
    let mut segment = [0.0; SEGMENT];
    for row in 0..codes.rows() {
        let (gate, up) = (params.gate.row(gates, first + row, dim), params.up.row(ups, first + row, dim));
        let columns =
            gate.chunks(SEGMENT).zip(up.chunks(SEGMENT)).zip(codes.row_mut(row).chunks_mut(SEGMENT));
        let groups = SEGMENT / group;
        let scales = scales.row_mut(row).chunks_mut(groups).zip(sums.row_mut(row).chunks_mut(groups));
        for (((gate, up), codes), (scales, sums)) in columns.zip(scales) {
            let y = &mut segment[..gate.len()];
            gate_row(Isa::detect(), activation(params), gate, up, y);
            let to = Int8RowMut { codes, scales, sums };
            quantise_row(Isa::detect(), y, group, to).unwrap_or_else(|error| broken(&error.to_string()));
        }
    }
}

pub(super) fn gate_row(isa: Isa, activation: GateActivation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    simd::run(isa, Denominators { activation, gate, out });
    for ((y, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *y = gate / *y * up;
    }
}

/// √(2/π).
const ROOT: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// Writes `1 + e^−z`, `z` being the gate or GELU's `2u`.
struct Denominators<'a> {
    activation: GateActivation,
    gate: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Denominators<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let one = s.splat(1.0);
        let (linear, cubic) = match self.activation {
            GateActivation::Silu => (-1.0, 0.0),
            GateActivation::GeluTanh => (-2.0 * ROOT, -2.0 * ROOT * 0.044715),
        };
        for (out, gate) in self.out.chunks_mut(S::LANES).zip(self.gate.chunks(S::LANES)) {
            let x = s.load(gate, 0.0);
            // Beyond ±1e12 the limits below are long reached, and the square is on its way out of range.
            let base = s.max(s.min(x, s.splat(1e12)), s.splat(-1e12));
            let slope = s.fma(s.mul(base, base), s.splat(cubic), s.splat(linear));
            let z = s.max(s.min(s.mul(slope, x), s.splat(88.0)), s.splat(-100.0));
            s.store(out, s.add(s.exp(z), one));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_follow_their_formulas() {
        let gate: Vec<f32> =
            (-300..300).map(|i| i as f32 * 0.1).chain([-1e30, -100.0, 100.0, 1e10, 1e30, f32::NAN]).collect();
        let up: Vec<f32> = (0..gate.len()).map(|i| 1.0 - i as f32 * 0.01).collect();
        for isa in Isa::all_available() {
            for activation in [GateActivation::Silu, GateActivation::GeluTanh] {
                let mut out = vec![0.0; gate.len()];
                gate_row(isa, activation, &gate, &up, &mut out);
                for ((x, up), y) in gate.iter().zip(&up).zip(out) {
                    let (x, up) = (f64::from(*x), f64::from(*up));
                    let want = up
                        * match activation {
                            GateActivation::Silu => x / (1.0 + (-x).exp()),
                            GateActivation::GeluTanh => {
                                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                                0.5 * x * (1.0 + u.tanh())
                            }
                        };
                    let error = (f64::from(y) - want).abs();
                    assert!(
                        y.is_nan() && x.is_nan() || error <= 2e-6 * want.abs() + 1e-6,
                        "{isa:?} {activation:?} {x}: {y}, not {want}"
                    );
                }
            }
        }
    }
}
