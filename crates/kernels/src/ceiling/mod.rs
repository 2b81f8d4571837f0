//! What a device gives at most: bytes read a second, and operations a second. Every figure of a kernel is told as a share
//! of these, measured in the same run.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};

use crate::shaders::{self, launch};
use crate::{Catalog, Kernel, Op, bounds};

/// Reads `x` once.
#[derive(Clone, Debug)]
pub struct ReadCeiling {
    /// A multiple of 16 bytes.
    pub x: Slice,
    /// u32 `[groups]`: something that depends on every byte.
    pub out: Slice,
    /// Workgroups.
    pub groups: usize,
}

/// Multiplies in registers.
#[derive(Clone, Debug)]
pub struct ArithmeticCeiling {
    /// 1 KiB: the factors.
    pub factors: Slice,
    /// [`ArithmeticCeiling::out_bytes`] bytes.
    pub out: Slice,
    /// Turns of the inner loop.
    pub turns: usize,
    /// Workgroups.
    pub groups: usize,
}

/// Which units [`ArithmeticCeiling`] keeps busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Matrix units: f16 factors, f32 sums.
    Matrix,
    /// Plain f32 arithmetic.
    Plain,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    first: u32,
    second: u32,
}

static READ: Kernel = Kernel { name: "ceiling_read_cpu", cpu: read };
static MULTIPLY: Kernel = Kernel { name: "ceiling_multiply_cpu", cpu: multiply };

impl Op for ReadCeiling {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let tiling = Tiling::by_rows(self.groups, 1, 1);
        bounds::holds::<u32>("read_ceiling", "out", &self.out, &[self.groups])?;
        Ok(Dispatch {
            pipeline: catalog.pipeline(&READ)?,
            bindings: vec![Binding::read(self.x.clone()), Binding::write(self.out.clone(), tiling)],
            params: bytemuck::bytes_of(&Params { first: self.groups as u32, second: 0 }).to_vec(),
            groups: tiling.grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        bounds::holds::<u32>("read_ceiling", "out", &self.out, &[self.groups])?;
        let bindings = vec![Binding::read(self.x.clone()), Binding::write_any(self.out.clone())];
        let params = Params { first: (self.x.size() / 16) as u32, second: self.groups as u32 * 256 };
        Ok(vec![launch(catalog, "ceiling_read", bindings, &params, [self.groups, 1, 1])?])
    }
}

fn read(invocation: &mut Invocation<'_>) {
    let groups = invocation.params::<Params>().first.max(1) as usize;
    let x = invocation.input::<u64>(0);
    let share = x.len().div_ceil(groups);
    let part = x.chunks(share.max(1)).nth(invocation.group()).unwrap_or_default();
    // Eight sums, so that one addition does not wait for the one before it.
    let mut sums = [0_u64; 8];
    for chunk in part.chunks_exact(8) {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum ^= value);
    }
    invocation.output::<u32>(1).row_mut(0)[0] = sums.into_iter().fold(0, |a, b| a ^ b) as u32;
}

impl ArithmeticCeiling {
    /// The units that it measures on this device.
    pub fn units(catalog: &Catalog) -> Units {
        match catalog.gpu() {
            Some(limits) if limits.cooperative_matrix => Units::Matrix,
            _ => Units::Plain,
        }
    }

    /// Bytes of `out` for so many workgroups.
    pub fn out_bytes(groups: usize) -> usize {
        groups * 8 * 16 * 16 * 4
    }

    /// Floating-point operations of a launch, a multiplication and an addition counted as two.
    pub fn operations(&self, catalog: &Catalog) -> f64 {
        let per_group = match (Self::units(catalog), catalog.gpu()) {
            (Units::Matrix, _) => 8 * 4 * 2 * matrix().1.pow(3),
            (Units::Plain, Some(_)) => 256 * 32 * 2,
            (Units::Plain, None) => CPU_LANES * 2,
        };
        per_group as f64 * self.turns as f64 * self.groups as f64
    }
}

/// The shader of the matrix units in this program, and the size of its matrices.
fn matrix() -> (&'static str, usize) {
    match shaders::find("ceiling_matrix_16") {
        Some(_) => ("ceiling_matrix_16", 16),
        None => ("ceiling_matrix_8", 8),
    }
}

impl Op for ArithmeticCeiling {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let tiling = Tiling::by_rows(self.groups, CPU_LANES, 1);
        Ok(Dispatch {
            pipeline: catalog.pipeline(&MULTIPLY)?,
            bindings: vec![Binding::read(self.factors.clone()), Binding::write(self.out.clone(), tiling)],
            params: bytemuck::bytes_of(&Params { first: self.turns as u32, second: 0 }).to_vec(),
            groups: tiling.grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        bounds::holds::<u8>("arithmetic_ceiling", "factors", &self.factors, &[1024])?;
        bounds::holds::<u8>("arithmetic_ceiling", "out", &self.out, &[Self::out_bytes(self.groups)])?;
        let name = match Self::units(catalog) {
            Units::Matrix => matrix().0,
            Units::Plain => "ceiling_multiply_add",
        };
        let bindings = vec![Binding::read(self.factors.clone()), Binding::write_any(self.out.clone())];
        let params = Params { first: self.turns as u32, second: 0 };
        Ok(vec![launch(catalog, name, bindings, &params, [self.groups, 1, 1])?])
    }
}

/// f32 numbers that a turn on the CPU multiplies: enough for the widest vectors and for their latency.
const CPU_LANES: usize = 128;

fn multiply(invocation: &mut Invocation<'_>) {
    let turns = invocation.params::<Params>().first;
    let factors = invocation.input::<f32>(0);
    let (factor, term) = (factors[0], factors[1]);
    let mut out = invocation.output::<f32>(1);
    crate::simd::run(crate::Isa::detect(), Turns { turns, factor, term, out: out.row_mut(0) });
}

struct Turns<'a> {
    turns: u32,
    factor: f32,
    term: f32,
    out: &'a mut [f32],
}

impl crate::simd::Task for Turns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: crate::simd::Simd>(self, s: S) {
        let (factor, term) = (s.splat(self.factor), s.splat(self.term));
        for chunk in self.out.chunks_exact_mut(8 * S::LANES) {
            let mut sums = [s.splat(0.5); 8];
            for _ in 0..self.turns {
                sums = sums.map(|sum| s.fma(sum, factor, term));
            }
            for (to, sum) in chunk.chunks_exact_mut(S::LANES).zip(sums) {
                s.store(to, sum);
            }
        }
    }
}
