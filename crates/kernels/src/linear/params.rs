//! A layout as a kernel's parameters.

use bytemuck::{Pod, Zeroable};

use super::layout::{Encoding, LinearLayout, LinearShape, ScaleType};

/// [`LinearLayout`] in plain words.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LayoutParams {
    encoding: u32,
    bits: u32,
    scale_type: u32,
    group: u32,
    experts: u32,
    out: u32,
    inp: u32,
    unused: u32,
}

impl LayoutParams {
    pub(super) fn new(layout: &LinearLayout) -> Self {
        let encoding = match layout.encoding() {
            Encoding::F32 => 0,
            Encoding::F16 => 1,
            Encoding::Bf16 => 2,
            Encoding::Affine { .. } => 3,
            Encoding::Mxfp4 => 4,
        };
        let scale_type = match layout.scale_type() {
            ScaleType::F32 => 0,
            ScaleType::F16 => 1,
            ScaleType::Bf16 => 2,
            ScaleType::E8m0 => 3,
        };
        // Every number is at most u32::MAX: the layout's constructor sees to it.
        Self {
            encoding,
            bits: layout.bits() as u32,
            scale_type,
            group: layout.group() as u32,
            experts: layout.experts() as u32,
            out: layout.out() as u32,
            inp: layout.inp() as u32,
            unused: 0,
        }
    }

    /// `None` for parameters that [`LayoutParams::new`] did not make.
    pub(super) fn layout(&self) -> Option<LinearLayout> {
        let encoding = match self.encoding {
            0 => Encoding::F32,
            1 => Encoding::F16,
            2 => Encoding::Bf16,
            3 => Encoding::Affine { bits: self.bits as u8 },
            _ => Encoding::Mxfp4,
        };
        let scale_type = match self.scale_type {
            0 => ScaleType::F32,
            1 => ScaleType::F16,
            2 => ScaleType::Bf16,
            _ => ScaleType::E8m0,
        };
        let shape =
            LinearShape { experts: self.experts as usize, out: self.out as usize, inp: self.inp as usize };
        LinearLayout::new(encoding, shape, self.group as usize, scale_type).ok()
    }
}
