//! Picks rows of a matrix by index: the rows whose logits are wanted, for instance.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

use crate::shaders::launch;
use crate::{Catalog, Kernel, Op, bounds};

/// `out[i] = x[indices[i]]`; a row of zeros where the index leaves `x`.
#[derive(Clone, Debug)]
pub struct GatherRows {
    /// f32 `[any, dim]`.
    pub x: Slice,
    /// u32 `[n]`.
    pub indices: Slice,
    /// f32 `[n, dim]`.
    pub out: Slice,
    /// Rows to pick.
    pub n: usize,
    /// Columns.
    pub dim: usize,
}

static KERNEL: Kernel = Kernel { name: "gather_rows", cpu: kernel };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    source_rows: u32,
    dim: u32,
}

impl GatherRows {
    fn check(&self) -> Result<()> {
        bounds::holds::<u32>("gather_rows", "indices", &self.indices, &[self.n])?;
        bounds::holds::<f32>("gather_rows", "out", &self.out, &[self.n, self.dim])
    }
}

impl Op for GatherRows {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { n, dim, .. } = *self;
        self.check()?;
        let tile_rows = bounds::rows_per_group(n, dim, catalog.workers());
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings: vec![
                Binding::read(self.x.clone()),
                Binding::read(self.indices.clone()),
                Binding::write(self.out.clone(), Tiling::by_rows(n, dim, tile_rows)),
            ],
            params: vec![],
            groups: line(n.div_ceil(tile_rows)),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        let source_rows = self.x.size() as usize / (4 * self.dim.max(1));
        let bindings = vec![
            Binding::read(self.x.clone()),
            Binding::read(self.indices.clone()),
            Binding::write_any(self.out.clone()),
        ];
        let params = GpuParams { source_rows: source_rows as u32, dim: self.dim as u32 };
        Ok(vec![launch(catalog, "gather_rows", bindings, &params, [self.dim.div_ceil(256), self.n, 1])?])
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let (x, indices) = (invocation.input::<f32>(0), invocation.input::<u32>(1));
    let mut out = invocation.output::<f32>(2);
    for (row, &index) in (0..out.rows()).zip(indices.iter().skip(out.first_row())) {
        let to = out.row_mut(row);
        match x.chunks_exact(to.len().max(1)).nth(index as usize) {
            Some(from) => to.copy_from_slice(from),
            None => to.fill(0.0),
        }
    }
}
