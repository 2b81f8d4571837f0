//! Products of few rows: one or a handful of rows stream the whole matrix.
//!
//! - A workgroup takes whole *panels* of 16 outputs; its 64 × 4 threads share the inputs, 32 at a time (`frame.wgsl`,
//!   `units.wgsl`), and their sums meet in workgroup memory. No sum crosses workgroups, so one launch is enough.
//! - Threads that share the inputs of a panel are as many as there are inputs to share: a function of the *matrix*, never
//!   of the rows. So the bits of a row are the same in every variant.
//! - *Integer* dot products where activations are int8; for f32 activations codes become floats without conversions, which
//!   GPUs do at a quarter of their speed.

mod variants;

use bessemer_hal::{Binding, DeviceError, Dispatch, GpuLimits, Result, Slice};
use bytemuck::{Pod, Zeroable};

use self::variants::{CAPACITY, CHOSEN, COMBINED_THREADS, Form, NORMED_COLUMNS};
use crate::linear::layout::{Encoding, LinearLayout, ScaleType};
use crate::linear::ops::{Experts, Linear, Weights};
use crate::linear::{
    CombinedExperts, GateActivation, GatedExperts, NormedForm, NormedLinear, SlotExperts, SlotInput, Write,
};
use crate::router::Normalise;
use crate::shaders::launch;
use crate::{Activations, Catalog, bounds};

/// Workgroups of panels that fit one axis; the rest goes to the next.
const FOLD: usize = 32768;
/// Threads of a workgroup that share the inputs of a panel at most, as a power of two.
const MOST_SHARING: u32 = 6;
const LEAST_SHARING: u32 = 3;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    steps: u32,
    panels: u32,
    panel_stride: u32,
    expert_stride: u32,
    kt_shift: u32,
    scale_type: u32,
    out: u32,
    rows: u32,
    input_rows: u32,
    flags: u32,
    experts: u32,
    top_k: u32,
    eps: f32,
    lanes: u32,
}

const BIAS: u32 = 1;
const ADD: u32 = 2;
const EXPERTS: u32 = 4;
const SORTED: u32 = 8;
const GELU: u32 = 16;
const SUM_TO_ONE: u32 = 32;

/// Threads of a workgroup of most variants.
const THREADS: usize = 256;
/// Threads of all workgroups together up to which each normalises the row for itself: large GPUs have them all at work at
/// once.
const MOST_NORMALISING: usize = 128 << 10;

impl Params {
    fn new(weights: &Weights, rows: usize) -> Self {
        let flags = if weights.bias.is_some() { BIAS } else { 0 };
        Self { flags, ..Self::of(&weights.layout, rows) }
    }

    /// Those of a matrix without a bias.
    fn of(layout: &LinearLayout, rows: usize) -> Self {
        // Steps of the sum, and bytes of an element of the weights' binding.
        let (steps, element) = match layout.encoding() {
            Encoding::F32 => (layout.inp(), 16),
            Encoding::F16 | Encoding::Bf16 => (layout.inp(), 8),
            _ => (layout.inp() / 32, layout.group_bytes()),
        };
        let panel_stride = layout.panel_bytes() / element;
        Self {
            steps: steps as u32,
            panels: layout.panels() as u32,
            panel_stride: panel_stride as u32,
            expert_stride: (layout.panels() * panel_stride) as u32,
            kt_shift: steps.next_power_of_two().ilog2().clamp(LEAST_SHARING, MOST_SHARING),
            scale_type: match layout.scale_type() {
                ScaleType::F16 => 1,
                ScaleType::Bf16 => 2,
                ScaleType::F32 | ScaleType::E8m0 => 0,
            },
            out: layout.out() as u32,
            rows: rows as u32,
            input_rows: rows as u32,
            flags: 0,
            experts: layout.experts() as u32,
            top_k: 0,
            eps: 0.0,
            lanes: 0,
        }
    }

    /// Workgroups of so many threads that share the panels.
    fn groups(&self, threads: usize) -> usize {
        (self.panels as usize).div_ceil((threads / 4) >> self.kt_shift)
    }

    /// The launch grid for so many workgroups of rows.
    fn grid(&self, rows: usize, threads: usize) -> [usize; 3] {
        let groups = self.groups(threads);
        [rows, groups.min(FOLD), groups.div_ceil(FOLD)]
    }
}

/// The variants for a product: rows of a workgroup, ascending.
pub(super) fn rows(layout: &LinearLayout, x: &Activations) -> &'static [usize] {
    form(layout, x).rows(wide_scales(layout))
}

/// `out = x · Wᵀ`, a workgroup for `rows` rows.
pub(super) fn linear(op: &Linear, catalog: &Catalog, rows: usize) -> Result<Vec<Dispatch>> {
    let mut params = Params::new(&op.weights, op.rows);
    if op.write == Write::Add {
        params.flags |= ADD;
    }
    let unused = &op.weights.packed;
    let bindings = bind(&op.weights, &op.x, [unused, unused], &op.out);
    let name = name(&op.weights.layout, form(&op.weights.layout, &op.x), rows);
    Ok(vec![launch(catalog, &name, bindings, &params, params.grid(op.rows.div_ceil(rows), THREADS))?])
}

/// `out[slot] = x[input(slot)] · W[ids[slot]]ᵀ`, a workgroup of the variant for `rows` rows for each slot.
pub(super) fn experts(
    op: &Experts,
    catalog: &Catalog,
    limits: &GpuLimits,
    rows: usize,
) -> Result<Vec<Dispatch>> {
    let mut params = Params::new(&op.weights, op.slots);
    params.flags |= EXPERTS;
    if let SlotInput::Token { top_k } = op.input {
        params.top_k = top_k.max(1);
        params.input_rows = (op.slots as u32).div_ceil(params.top_k);
    }
    // Tokens that chose the same expert read it one after the other, out of the cache.
    let order = match Experts::reads_order(op.slots, op.weights.layout.experts(), Some(limits)) {
        true => {
            params.flags |= SORTED;
            &op.slot_order()?.order
        }
        false => &op.weights.packed,
    };
    let bindings = bind(&op.weights, &op.x, [&op.ids, order], &op.out);
    let name = name(&op.weights.layout, form(&op.weights.layout, &op.x), rows);
    Ok(vec![launch(catalog, &name, bindings, &params, params.grid(op.slots, THREADS))?])
}

/// Threads of the workgroups that normalise a row where it is multiplied; `None` where that is not done.
fn normalising_threads(layout: &LinearLayout, form: Form, limits: &GpuLimits) -> Option<usize> {
    let fits = layout.is_quantised()
        && !wide_scales(layout)
        && layout.experts() == 1
        && layout.inp() <= NORMED_COLUMNS;
    let params = Params::of(layout, 1);
    let runs = |threads: &usize| {
        *threads <= limits.workgroup_threads as usize
            && normed_memory(*threads) <= limits.workgroup_memory as usize
            && params.groups(*threads) <= MOST_NORMALISING / threads
    };
    form.normed_threads().iter().copied().find(runs).filter(|_| fits)
}

/// Whether a row can be normalised where it is multiplied, in any form.
pub(super) fn normalises(layout: &LinearLayout, limits: &GpuLimits) -> bool {
    [Form::Int8, Form::Int8x2, Form::Exact]
        .iter()
        .all(|form| normalising_threads(layout, *form, limits).is_some())
}

/// Bytes of workgroup memory of a workgroup that has its row as f32: the row, what its groups tell each other, and sums.
fn normed_memory(threads: usize) -> usize {
    let squares = if threads > 256 { NORMED_COLUMNS } else { 0 };
    4 * NORMED_COLUMNS + 2 * NORMED_COLUMNS + squares + 18 * threads + 2048
}

/// `out = norm(x) · Wᵀ`, each workgroup with the row in its own memory.
pub(super) fn normed_linear(
    op: &NormedLinear,
    catalog: &Catalog,
    limits: &GpuLimits,
) -> Result<Vec<Dispatch>> {
    let params = Params { eps: op.eps, lanes: op.group() as u32 / 4, ..Params::new(&op.weights, 1) };
    let unused = &op.weights.packed;
    let mut bindings = bind(&op.weights, &Activations::F32(op.x.clone()), [unused, unused], &op.out);
    bindings.push(Binding::read(op.norm.clone()));
    let form = match &op.form {
        NormedForm::Int8 => Form::Int8,
        NormedForm::Int8x2 => Form::Int8x2,
        NormedForm::F32(int8) => {
            let out = [&int8.codes, &int8.scales, &int8.sums];
            bindings.extend(out.map(|slice| Binding::write_any(slice.clone())));
            Form::Exact
        }
    };
    let threads = normalising_threads(&op.weights.layout, form, limits).ok_or_else(|| {
        DeviceError::Usage("normed_linear: no launch takes this layout; record a norm and a product".into())
    })?;
    let name = normed_name(&op.weights.layout, form, threads);
    Ok(vec![launch(catalog, &name, bindings, &params, params.grid(1, threads))?])
}

/// Whether gate and up of experts are one launch.
pub(super) fn gates(layout: &LinearLayout) -> bool {
    layout.is_quantised() && !wide_scales(layout) && layout.out().is_multiple_of(32)
}

/// `out[slot] = act(g) · u`, a workgroup for each slot and panel of both.
pub(super) fn gated_experts(op: &GatedExperts, catalog: &Catalog) -> Result<Vec<Dispatch>> {
    bounds::rule("gated_experts", matches!(op.x, Activations::Int8(_)), || {
        "a GPU takes int8 rows of one term".into()
    })?;
    let all = Params::new(&op.weights, op.slots);
    let gelu = if op.activation == GateActivation::GeluTanh { GELU } else { 0 };
    let sum_to_one = match &op.experts {
        SlotExperts::Chosen(router) if router.normalise == Normalise::SumToOne => SUM_TO_ONE,
        _ => 0,
    };
    let params = Params {
        panels: all.panels / 2,
        out: op.width() as u32,
        flags: all.flags | EXPERTS | gelu | sum_to_one,
        top_k: op.top_k as u32,
        input_rows: op.slots.div_ceil(op.top_k) as u32,
        ..all
    };
    let mut bindings = bind(&op.weights, &op.x, [op.experts.ids(), &op.weights.packed], &op.out);
    let mut name = format!("few_{}_gated", weights_name(&op.weights.layout));
    if let SlotExperts::Chosen(router) = &op.experts {
        bindings[IDS] = Binding::write_any(router.ids.clone());
        bindings.push(Binding::read(router.logits.clone()));
        bindings.push(Binding::write_any(router.weights.clone()));
        name += "_chosen";
    }
    Ok(vec![launch(catalog, &name, bindings, &params, params.grid(op.slots, THREADS))?])
}

/// Whether a launch of gate and up can choose from so many experts.
pub(super) fn chooses(experts: usize) -> bool {
    experts <= CHOSEN
}

/// Threads of the workgroups that add up the results of experts; `None` where none can.
pub(super) fn combining_threads(layout: &LinearLayout, top_k: usize, limits: &GpuLimits) -> Option<usize> {
    let fits = layout.is_quantised() && !wide_scales(layout) && top_k * layout.inp() <= CAPACITY;
    // Codes with what is known of them, and of every thread a vector and half a value.
    let memory = |threads: usize| CAPACITY + CAPACITY / 2 + 18 * threads;
    let runs = |threads: &usize| {
        *threads <= limits.workgroup_threads as usize && memory(*threads) <= limits.workgroup_memory as usize
    };
    COMBINED_THREADS.into_iter().find(runs).filter(|_| fits)
}

/// `out[row] += Σ_j shares[row, j] · …`, a workgroup for each row and panel.
pub(super) fn combined_experts(
    op: &CombinedExperts,
    catalog: &Catalog,
    threads: usize,
) -> Result<Vec<Dispatch>> {
    let params = Params { top_k: op.top_k as u32, ..Params::new(&op.weights, op.rows) };
    let x = Activations::F32(op.x.clone());
    let bindings = bind(&op.weights, &x, [&op.ids, &op.shares], &op.out);
    let name = format!("few_{}_combined_{threads}", weights_name(&op.weights.layout));
    let panels = params.panels as usize;
    let groups = [op.rows, panels.min(FOLD), panels.div_ceil(FOLD)];
    Ok(vec![launch(catalog, &name, bindings, &params, groups)?])
}

/// Where [`bind`] puts the experts of the slots.
const IDS: usize = 2;

/// A binding that a launch does not use holds the weights.
fn bind(weights: &Weights, x: &Activations, routing: [&Slice; 2], out: &Slice) -> Vec<Binding> {
    let [ids, order] = routing;
    let bias = weights.bias.as_ref().unwrap_or(&weights.packed);
    let mut bindings: Vec<Binding> =
        [&weights.packed, bias, ids, order].map(|slice| Binding::read(slice.clone())).into();
    bindings.push(Binding::write_any(out.clone()));
    match x {
        Activations::F32(x) => bindings.push(Binding::read(x.clone())),
        Activations::Int8(x) | Activations::Int8x2(x) => {
            bindings.extend([&x.codes, &x.scales, &x.sums].map(|slice| Binding::read(slice.clone())));
        }
    }
    bindings
}

fn form(layout: &LinearLayout, x: &Activations) -> Form {
    match x {
        Activations::F32(_) if layout.is_quantised() => Form::Exact,
        Activations::F32(_) => Form::Plain,
        Activations::Int8(_) => Form::Int8,
        Activations::Int8x2(_) => Form::Int8x2,
    }
}

fn wide_scales(layout: &LinearLayout) -> bool {
    layout.scale_type() == ScaleType::F32
}

fn name(layout: &LinearLayout, form: Form, rows: usize) -> String {
    format!("few_{}_{}_x{rows}", weights_name(layout), form.name())
}

fn normed_name(layout: &LinearLayout, form: Form, threads: usize) -> String {
    format!("few_{}_{}_normed_{threads}", weights_name(layout), form.name())
}

fn weights_name(layout: &LinearLayout) -> String {
    match layout.encoding() {
        Encoding::F32 => "f32".to_owned(),
        Encoding::F16 => "f16".to_owned(),
        Encoding::Bf16 => "bf16".to_owned(),
        Encoding::Mxfp4 => "mxfp4".to_owned(),
        Encoding::Affine { bits } => {
            format!("affine{bits}_{}_{}", layout.group(), if wide_scales(layout) { 32 } else { 16 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::LinearShape;

    #[test]
    fn every_variant_is_compiled() {
        let mut layouts =
            vec![LinearLayout::new(Encoding::Mxfp4, LinearShape::new(16, 128), 32, ScaleType::E8m0)];
        for bits in [2, 3, 4, 5, 6, 8] {
            for group in [32, 64, 128] {
                for scales in [ScaleType::F16, ScaleType::Bf16, ScaleType::F32] {
                    layouts.push(LinearLayout::new(
                        Encoding::Affine { bits },
                        LinearShape::new(16, 128),
                        group,
                        scales,
                    ));
                }
            }
        }
        let plain = [Encoding::F32, Encoding::F16, Encoding::Bf16];
        layouts.extend(plain.map(|encoding| LinearLayout::plain(encoding, LinearShape::new(16, 7))));
        for layout in layouts.into_iter().map(Result::unwrap) {
            let forms: &[Form] = match layout.is_quantised() {
                true => &[Form::Int8, Form::Int8x2, Form::Exact],
                false => &[Form::Plain],
            };
            let mut names: Vec<String> = forms
                .iter()
                .flat_map(|form| {
                    form.rows(wide_scales(&layout)).iter().map(|rows| name(&layout, *form, *rows))
                })
                .collect();
            if layout.is_quantised() && !wide_scales(&layout) {
                let weights = weights_name(&layout);
                names.extend(["gated", "gated_chosen"].map(|part| format!("few_{weights}_{part}")));
                for &form in forms {
                    // Those of more threads are not for Apple's GPUs.
                    let threads = form
                        .normed_threads()
                        .iter()
                        .filter(|n| **n <= 256 || cfg!(not(target_vendor = "apple")));
                    names.extend(threads.map(|threads| normed_name(&layout, form, *threads)));
                }
                names.extend(COMBINED_THREADS.map(|threads| format!("few_{weights}_combined_{threads}")));
            }
            for name in names {
                assert!(crate::shaders::find(&name).is_some(), "{name}");
            }
        }
    }
}
