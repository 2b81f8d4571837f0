//! Turning rows' choices of experts into experts' lists of rows.

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};

use crate::shaders::launch;
use crate::{Catalog, Kernel, Op, bounds};

/// Sorts the slots of all rows by expert, keeping their order within an expert (a counting sort, in one workgroup).
///
/// Slot `row * top_k + j` is choice `j` of `row`. The slots of expert `e` are `order[offsets[e]..offsets[e + 1]]`.
#[derive(Clone, Debug)]
pub struct ExpertSort {
    /// u32 `[rows, top_k]`; an id that is no expert counts as the last expert.
    pub ids: Slice,
    /// u32 `[experts + 1]`.
    pub offsets: Slice,
    /// u32 `[rows * top_k]`.
    pub order: Slice,
    /// Rows.
    pub rows: usize,
    /// Experts.
    pub experts: usize,
    /// Choices of a row.
    pub top_k: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    slots: u32,
}

static KERNEL: Kernel = Kernel { name: "expert_sort", cpu: kernel };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    slots: u32,
    experts: u32,
}

impl ExpertSort {
    /// Gives the number of slots.
    fn check(&self) -> Result<usize> {
        let slots = self.rows.saturating_mul(self.top_k);
        bounds::holds::<u32>("expert_sort", "ids", &self.ids, &[slots])?;
        bounds::holds::<u32>("expert_sort", "offsets", &self.offsets, &[self.experts + 1])?;
        bounds::holds::<u32>("expert_sort", "order", &self.order, &[slots])?;
        bounds::rule("expert_sort", self.experts > 0 && slots > 0, || {
            format!("needs experts and slots, got {} experts and {slots} slots", self.experts)
        })?;
        Ok(slots)
    }
}

impl Op for ExpertSort {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let slots = self.check()?;
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings: vec![
                Binding::read(self.ids.clone()),
                Binding::write(self.offsets.clone(), Tiling::whole(1, self.experts + 1)),
                Binding::write(self.order.clone(), Tiling::whole(1, slots)),
            ],
            params: bytemuck::bytes_of(&Params { slots: slots as u32 }).to_vec(),
            groups: line(1),
        })
    }

    /// One launch, a workgroup for each expert.
    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        let slots = self.check()?;
        bounds::indices("expert_sort", &[slots])?;
        let bindings = vec![
            Binding::read(self.ids.clone()),
            Binding::write_any(self.offsets.clone()),
            Binding::write_any(self.order.clone()),
        ];
        let params = GpuParams { slots: slots as u32, experts: self.experts as u32 };
        Ok(vec![launch(catalog, "expert_sort", bindings, &params, [self.experts, 1, 1])?])
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let Params { slots } = invocation.params();
    let ids = invocation.input::<u32>(0);
    let (mut offsets, mut order) = (invocation.output(1), invocation.output(2));
    sort_slots(ids.get(..slots as usize).unwrap_or(ids), offsets.row_mut(0), order.row_mut(0));
}

/// Counts and places the slots of each expert, of which there is one less than `offsets`; an id beyond them counts as the
/// last.
pub(crate) fn sort_slots(ids: &[u32], offsets: &mut [u32], order: &mut [u32]) {
    let last = (offsets.len() - 2) as u32;
    offsets.fill(0);
    // While slots are placed, offsets[e + 1] is where the next slot of expert e goes: it starts at the expert's first
    // slot and ends at the first slot of the next, which is where it has to be.
    for &id in ids {
        if let Some(next) = offsets.get_mut(id.min(last) as usize + 2) {
            *next += 1;
        }
    }
    let mut first = 0;
    for offset in offsets.iter_mut() {
        first += *offset;
        *offset = first;
    }
    for (slot, &id) in ids.iter().enumerate() {
        let next = &mut offsets[id.min(last) as usize + 1];
        order[*next as usize] = slot as u32;
        *next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Random;

    #[test]
    fn slots_are_sorted_by_expert_and_stay_in_order() {
        let mut random = Random(5);
        for (slots, experts) in [(1, 1), (7, 1), (10, 3), (64, 16), (1000, 128), (5, 60)] {
            let ids: Vec<u32> = (0..slots).map(|_| random.below(experts) as u32).collect();
            let (mut offsets, mut order) = (vec![7; experts + 1], vec![7; slots]);
            sort_slots(&ids, &mut offsets, &mut order);
            let mut expected: Vec<u32> = (0..slots as u32).collect();
            expected.sort_by_key(|&slot| ids[slot as usize]);
            assert_eq!(order, expected);
            for expert in 0..experts {
                let (from, to) = (offsets[expert] as usize, offsets[expert + 1] as usize);
                assert!(order[from..to].iter().all(|&slot| ids[slot as usize] == expert as u32));
            }
            assert_eq!((offsets[0], offsets[experts] as usize), (0, slots));
        }
    }

    #[test]
    fn an_unknown_expert_counts_as_the_last() {
        let (mut offsets, mut order) = ([0; 3], [0; 3]);
        sort_slots(&[u32::MAX, 0, 5], &mut offsets, &mut order);
        assert_eq!((offsets, order), ([0, 1, 3], [1, 0, 2]));
    }
}
