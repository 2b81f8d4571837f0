//! What the kernels are told: `params.wgsl`.

use bytemuck::{Pod, Zeroable};

use crate::Activations;
use crate::linear::layout::ScaleType;
use crate::linear::ops::{Experts, Linear, Weights, terms};
use crate::linear::{SlotInput, Write};

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    inp: u32,
    out: u32,
    rows: u32,
    pub(super) input_rows: u32,
    panel_stride: u32,
    expert_stride: u32,
    group_stride: u32,
    group_shift: u32,
    scale_type: u32,
    terms: u32,
    pub(super) flags: u32,
    experts: u32,
    top_k: u32,
    pub(super) steps: u32,
}

pub(super) const BIAS: u32 = 1;
pub(super) const ADD: u32 = 2;
pub(super) const EXPERTS: u32 = 4;
pub(super) const PARTIAL: u32 = 8;

impl Params {
    fn new(weights: &Weights, x: &Activations, rows: usize) -> Self {
        let layout = &weights.layout;
        // Strides count words of 32 bits, and what lies in a panel is a multiple of those.
        Self {
            inp: layout.inp() as u32,
            out: layout.out() as u32,
            rows: rows as u32,
            input_rows: rows as u32,
            panel_stride: (layout.panel_bytes() / 4) as u32,
            expert_stride: (layout.panels() * layout.panel_bytes() / 4) as u32,
            group_stride: (layout.group_bytes() / 4) as u32,
            group_shift: layout.group().trailing_zeros(),
            scale_type: match layout.scale_type() {
                ScaleType::F16 => 1,
                ScaleType::Bf16 => 2,
                ScaleType::F32 | ScaleType::E8m0 => 0,
            },
            terms: terms(x) as u32,
            flags: if weights.bias.is_some() { BIAS } else { 0 },
            experts: layout.experts() as u32,
            top_k: 0,
            steps: 0,
        }
    }

    pub(super) fn linear(op: &Linear) -> Self {
        let mut params = Self::new(&op.weights, &op.x, op.rows);
        if op.write == Write::Add {
            params.flags |= ADD;
        }
        params
    }

    pub(super) fn experts(op: &Experts) -> Self {
        let mut params = Self::new(&op.weights, &op.x, op.slots);
        params.flags |= EXPERTS;
        if let SlotInput::Token { top_k } = op.input {
            params.top_k = top_k.max(1);
            params.input_rows = (op.slots as u32).div_ceil(params.top_k);
        }
        params
    }
}

/// Tiles of `rows` rows that hold the slots of every expert, however they are shared out: see `rows.wgsl`.
pub(super) fn expert_tiles(op: &Experts, rows: usize) -> usize {
    op.slots / rows + op.weights.layout.experts()
}
