//! The first half of a layer of experts: gate, up, and the one passed through the other, without a launch between them.

use bessemer_hal::cpu::{Invocation, Tile};
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};

use super::gated::{GateActivation, gate_row};
use super::gpu::product;
use super::layout::{LANES, LinearLayout};
use super::multiply::{Routing, SlotInput, Write, multiply_experts};
use super::ops::{Operands, ProductParams, Weights, broken};
use super::select::tile_columns;
use crate::router::{Normalise, Router, Scores, choose, sort_slots};
use crate::{Activations, Catalog, Isa, Kernel, Op, bounds};

/// `out[slot] = act(g) · u`, `g` and `u` being the halves of `x[slot / top_k] · W[ids[slot]]ᵀ + bias[ids[slot]]`.
///
/// What [`Experts`](super::Experts) and [`Gated`](super::Gated) are for few slots on a GPU: see [`GatedExperts::takes`]. A slot
/// whose id is no expert keeps its row.
#[derive(Clone, Debug)]
pub struct GatedExperts {
    /// `[slots / top_k, inp]`.
    pub x: Activations,
    /// `[experts, 2 · width, inp]`: the gate's rows, then those of up.
    pub weights: Weights,
    /// The expert of each slot.
    pub experts: SlotExperts,
    /// Slots that read one row.
    pub top_k: usize,
    /// f32 `[slots, width]`.
    pub out: Slice,
    /// Tokens times experts per token.
    pub slots: usize,
    /// What gates are passed through.
    pub activation: GateActivation,
}

/// The expert of each slot.
#[derive(Clone, Debug)]
pub enum SlotExperts {
    /// u32 `[slots]`.
    Given(Slice),
    /// Those that this router chooses: the launch does it, and leaves its ids and weights. See [`SlotExperts::chooses`].
    Chosen(Router),
}

impl SlotExperts {
    /// Whether a GPU's launch can choose from so many experts.
    pub fn chooses(experts: usize) -> bool {
        product::chooses(experts)
    }

    /// u32 `[slots]`.
    pub(super) fn ids(&self) -> &Slice {
        match self {
            Self::Given(ids) | Self::Chosen(Router { ids, .. }) => ids,
        }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    product: ProductParams,
    gelu: u32,
    /// 1: experts are chosen.
    chosen: u32,
    sum_to_one: u32,
}

static KERNEL: Kernel = Kernel { name: "gated_experts", cpu: kernel };

impl GatedExperts {
    /// Whether a GPU has a launch for so many slots: they are few, and the weights have codes with narrow scales. Int8
    /// rows of one term only.
    pub fn takes(weights: &LinearLayout, slots: usize, limits: &GpuLimits) -> bool {
        product::gates(weights, slots, limits)
    }

    /// Columns of the result.
    pub(super) fn width(&self) -> usize {
        self.weights.layout.out() / 2
    }

    /// Checks every size; the bindings of weights, activations and bias.
    fn check(&self) -> Result<Vec<Binding>> {
        let (layout, slots) = (&self.weights.layout, self.slots);
        bounds::rule("gated_experts", layout.out().is_multiple_of(2 * LANES), || {
            format!("gate and up have {} rows together, not a multiple of {}", layout.out(), 2 * LANES)
        })?;
        bounds::rule("gated_experts", self.top_k > 0, || "a row needs at least one expert".into())?;
        bounds::holds::<u32>("gated_experts", "ids", self.experts.ids(), &[slots])?;
        if let SlotExperts::Chosen(router) = &self.experts {
            router.check()?;
            let Scores::Softmax = router.scores;
            let same = (router.rows * router.top_k, router.experts, router.top_k);
            bounds::rule("gated_experts", same == (slots, layout.experts(), self.top_k), || {
                format!(
                    "the router chooses {} of {} for {} rows; there are {slots} slots, {} a row, and {} experts",
                    router.top_k,
                    router.experts,
                    router.rows,
                    self.top_k,
                    layout.experts()
                )
            })?;
        }
        bounds::holds::<f32>("gated_experts", "out", &self.out, &[slots, self.width()])?;
        self.weights.bind("gated_experts", &self.x, slots.div_ceil(self.top_k))
    }
}

impl Op for GatedExperts {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let (layout, slots) = (&self.weights.layout, self.slots);
        let mut bindings = self.check()?;
        // A router has one piece: it chooses once.
        let cols = match &self.experts {
            SlotExperts::Given(_) => tile_columns(layout, slots, catalog.workers()),
            SlotExperts::Chosen(_) => self.width(),
        };
        let tiling = Tiling::by_cols(slots, self.width(), cols);
        let mut sum_to_one = 0;
        match &self.experts {
            SlotExperts::Given(ids) => {
                bindings.push(Binding::read(ids.clone()));
                bindings.push(Binding::write(self.out.clone(), tiling));
            }
            SlotExperts::Chosen(router) => {
                let whole = Tiling::by_cols(router.rows, self.top_k, self.top_k);
                bindings.push(Binding::write(router.ids.clone(), whole));
                bindings.push(Binding::write(self.out.clone(), tiling));
                bindings.push(Binding::read(router.logits.clone()));
                bindings.push(Binding::write(router.weights.clone(), whole));
                sum_to_one = u32::from(router.normalise == Normalise::SumToOne);
            }
        }
        let product = ProductParams::new(&self.weights, &self.x, slots, Write::Store);
        let params = Params {
            product: product.of_tokens(self.top_k),
            gelu: u32::from(self.activation == GateActivation::GeluTanh),
            chosen: u32::from(matches!(self.experts, SlotExperts::Chosen(_))),
            sum_to_one,
        };
        Ok(Dispatch {
            pipeline: catalog.pipeline(&KERNEL)?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: tiling.grid(),
        })
    }

    /// One launch.
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        let experts = self.weights.layout.experts();
        let chooses = matches!(self.experts, SlotExperts::Given(_)) || SlotExperts::chooses(experts);
        bounds::rule("gated_experts", chooses, || {
            format!("no launch chooses from {experts} experts; record a router before it")
        })?;
        product::gated_experts(self, catalog, limits)
    }
}

fn kernel(invocation: &mut Invocation<'_>) {
    let Params { product, gelu, chosen, sum_to_one } = invocation.params();
    let Operands { matrix, x, epilogue, next } = Operands::read(invocation, &product);
    let slots = product.rows();
    let made;
    let ids = if chosen == 1 {
        made = choose_experts(invocation, next, matrix.layout().experts(), sum_to_one == 1);
        &made
    } else {
        invocation.input::<u32>(next).get(..slots).unwrap_or_default()
    };
    let (offsets, order) = by_expert(ids, matrix.layout().experts());
    let routing =
        Routing { offsets: &offsets, order: &order, input: SlotInput::Token { top_k: product.top_k() } };
    let mut out = invocation.output::<f32>(next + 1);
    let (cols, first) = (out.cols(), out.first_col() / LANES);
    let [mut gate, mut up] = [vec![0.0; slots * cols], vec![0.0; slots * cols]];
    let apart = matrix.layout().out() / 2 / LANES;
    for (half, from) in [(&mut gate, first), (&mut up, first + apart)] {
        let mut tile = Tile::from_slice(half, cols, 0..cols);
        let panels = from..from + cols.div_ceil(LANES);
        multiply_experts(Isa::detect(), matrix, x, routing, panels, &mut tile, epilogue)
            .unwrap_or_else(|error| broken(&error.to_string()));
    }
    let activation = if gelu == 1 { GateActivation::GeluTanh } else { GateActivation::Silu };
    for &slot in &order {
        let row = slot as usize * cols..(slot as usize + 1) * cols;
        gate_row(Isa::detect(), activation, &gate[row.clone()], &up[row], out.row_mut(slot as usize));
    }
}

/// What the router chooses, which goes out, too. Its ids are binding `first`, its logits and weights the last two.
fn choose_experts(
    invocation: &mut Invocation<'_>,
    first: usize,
    experts: usize,
    sum_to_one: bool,
) -> Vec<u32> {
    let normalise = if sum_to_one { Normalise::SumToOne } else { Normalise::Keep };
    let mut ids = invocation.output::<u32>(first);
    let logits = invocation.input::<f32>(first + 2);
    let mut weights = invocation.output::<f32>(first + 3);
    let mut made = Vec::with_capacity(ids.rows() * ids.cols());
    for (row, logits) in (0..ids.rows()).zip(logits.chunks_exact(experts.max(1))) {
        choose(Isa::detect(), logits, normalise, ids.row_mut(row), weights.row_mut(row));
        made.extend_from_slice(ids.row(row));
    }
    made
}

/// The slots of each expert, as [`Routing`] takes them; those of none are left out.
pub(super) fn by_expert(ids: &[u32], experts: usize) -> (Vec<u32>, Vec<u32>) {
    // Those of none come last, as if there were one expert more.
    let (mut offsets, mut order) = (vec![0; experts + 2], vec![0; ids.len()]);
    sort_slots(ids, &mut offsets, &mut order);
    order.truncate(offsets[experts] as usize);
    offsets.truncate(experts + 1);
    (offsets, order)
}
