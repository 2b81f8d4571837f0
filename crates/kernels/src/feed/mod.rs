//! Puts tokens that the device drew where the next step reads them, so that no step waits for the host.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

use crate::sampling::SampleOut;
use crate::shaders::launch;
use crate::{Catalog, Kernel, Op, bounds};

/// [`Feed::from`] of an entry that is not used.
pub const NOT_FED: u32 = u32::MAX;

/// `ids[to[i]] = drawn[from[i]].token` for every `i`; entries that leave `drawn` or `ids` change nothing. No two entries
/// in use have the same `to`.
#[derive(Clone, Debug)]
pub struct Feed {
    /// [`SampleOut`] `[any]`: what the step before drew.
    pub drawn: Slice,
    /// u32 `[n]`: which draw, or [`NOT_FED`].
    pub from: Slice,
    /// u32 `[n]`: where it goes.
    pub to: Slice,
    /// u32 `[any]`: what the host knew.
    pub ids: Slice,
    /// Entries.
    pub n: usize,
}

static KERNEL: Kernel = Kernel { name: "feed", cpu: kernel };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    draws: u32,
    ids: u32,
    n: u32,
}

impl Feed {
    fn check(&self) -> Result<()> {
        bounds::holds::<u32>("feed", "from", &self.from, &[self.n])?;
        bounds::holds::<u32>("feed", "to", &self.to, &[self.n])
    }

    fn ids(&self) -> usize {
        self.ids.size() as usize / size_of::<u32>()
    }
}

impl Op for Feed {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        self.check()?;
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings: vec![
                Binding::read(self.drawn.clone()),
                Binding::read(self.from.slice(0, (self.n * size_of::<u32>()) as u64)?),
                Binding::read(self.to.slice(0, (self.n * size_of::<u32>()) as u64)?),
                Binding::write(self.ids.clone(), Tiling::by_rows(1, self.ids(), 1)),
            ],
            params: vec![],
            groups: line(1),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let params = GpuParams {
            draws: small(self.drawn.size() as usize / size_of::<SampleOut>()),
            ids: small(self.ids()),
            n: small(self.n),
        };
        let bindings = vec![
            Binding::read(self.drawn.clone()),
            Binding::read(self.from.clone()),
            Binding::read(self.to.clone()),
            Binding::write_any(self.ids.clone()),
        ];
        Ok(vec![launch(catalog, "feed", bindings, &params, [self.n.div_ceil(64), 1, 1])?])
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let drawn = invocation.input::<SampleOut>(0);
    let (from, to) = (invocation.input::<u32>(1), invocation.input::<u32>(2));
    let mut ids = invocation.output::<u32>(3);
    let ids = ids.row_mut(0);
    for (from, to) in from.iter().zip(to) {
        if let (Some(drawn), Some(id)) = (drawn.get(*from as usize), ids.get_mut(*to as usize)) {
            *id = drawn.token;
        }
    }
}

#[cfg(test)]
mod tests {
    use bessemer_hal::cpu::{CpuDevice, CpuOptions};
    use bessemer_hal::{BufferDesc, Device, QueueKind, Submit};

    use super::*;

    #[test]
    fn only_what_was_drawn_is_replaced() {
        let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() });
        let put = |bytes: &[u8]| {
            let slice = device.create_buffer(&BufferDesc::own("test", bytes.len() as u64)).unwrap().whole();
            device.write(&slice, bytes).unwrap();
            slice
        };
        let drawn: Vec<SampleOut> = [40, 41, 42].map(|token| SampleOut { token, logprob: -1.0 }).to_vec();
        let ids = put(bytemuck::cast_slice(&[1_u32, 2, 3, 4, 5]));
        let op = Feed {
            drawn: put(bytemuck::cast_slice(&drawn)),
            // The last two leave the draws and the ids.
            from: put(bytemuck::cast_slice(&[2_u32, NOT_FED, 0, 3, 1])),
            to: put(bytemuck::cast_slice(&[0_u32, 1, 4, 2, 5])),
            ids: ids.clone(),
            n: 5,
        };
        let catalog = Catalog::new(device.clone());
        let mut encoder = device.create_encoder("feed").unwrap();
        encoder.dispatch(&op.cpu(&catalog).unwrap()).unwrap();
        let commands = encoder.finish().unwrap();
        let submission = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
        submission.wait(std::time::Duration::from_secs(10)).unwrap();
        let mut out = [0_u32; 5];
        device.read(&ids, bytemuck::cast_slice_mut(&mut out)).unwrap();
        assert_eq!(out, [42, 2, 3, 4, 40]);
        let short = Feed { n: 6, ..op };
        assert!(short.cpu(&catalog).unwrap_err().to_string().contains("from"));
    }
}
