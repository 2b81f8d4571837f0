//! The mixture of experts: every token visits the `top_k` experts that its router chose.

use bessemer_hal::Slice;
use bessemer_kernels::linear::{
    CombinedExperts, Experts, GateActivation, Gated, GatedExperts, NormedForm, SlotExperts, SlotInput,
    SlotOrder, Write,
};
use bessemer_kernels::rms_norm::NormInput;
use bessemer_kernels::router::{Combine, ExpertSort, Normalise, Router, Scores};
use bessemer_kernels::{Activations, View};
use bessemer_runtime::Recorder;

use crate::config::MoeConfig;
use crate::layers::linear::{Input, Linear, activations, convert, input_of, produce};
use crate::layers::norm::{NextNorm, Norm};
use crate::loader::{Loader, Matrix};
use crate::precision::{Precision, Terms};
use crate::{ModelError, Result};

/// `post_attention_layernorm` and the sparse `mlp` of a decoder layer.
pub(crate) struct Moe {
    norm: Norm,
    gate: Linear,
    gate_up: GateUp,
    down: Matrix,
    precision: Precision,
    config: MoeConfig,
    hidden: usize,
}

/// The first two matrices of every expert.
enum GateUp {
    /// Side by side.
    One(Matrix),
    /// A launch each.
    Each(Matrix, Matrix),
}

impl GateUp {
    /// The activations that it takes: f32 when its parts take different ones, which are then made from it.
    fn input(&self, precision: Precision) -> Input {
        match self {
            Self::One(matrix) => input_of(matrix, precision),
            Self::Each(gate, up) => match (input_of(gate, precision), input_of(up, precision)) {
                (gate, up) if gate == up => gate,
                _ => Input::F32,
            },
        }
    }
}

impl Moe {
    /// `prefix` is the decoder layer's.
    pub(crate) fn load(loader: &Loader<'_>, prefix: &str) -> Result<Self> {
        let Some(config) = loader.config.moe.clone() else {
            return Err(ModelError::Batch("a sparse layer needs an expert configuration".into()));
        };
        let (hidden, width, experts) = (loader.config.hidden_size, config.width, config.experts);
        let own = format!("{prefix}.mlp");
        let (gate, up) = (format!("{own}.switch_mlp.gate_proj"), format!("{own}.switch_mlp.up_proj"));
        let gate_up = match loader.fused_experts(&[(&gate, width), (&up, width)], hidden, experts)? {
            Some(matrix) => GateUp::One(matrix),
            None => GateUp::Each(
                loader.expert_matrix(&gate, width, hidden, experts)?,
                loader.expert_matrix(&up, width, hidden, experts)?,
            ),
        };
        // The router decides which experts a token visits: it is small, and a flipped choice costs more than its time.
        let router = loader.matrix(&format!("{own}.gate"), experts, hidden)?;
        Ok(Self {
            norm: Norm::load(loader, &format!("{prefix}.post_attention_layernorm"), hidden)?,
            gate: Linear::new(router, None, Precision::F32),
            gate_up,
            down: loader.expert_matrix(&format!("{own}.switch_mlp.down_proj"), hidden, width, experts)?,
            precision: loader.final_precision(),
            config,
            hidden,
        })
    }

    /// `x += Σ_j weight_j · expert_j(norm(x))`, and `next` of that.
    pub(crate) fn encode(
        &self,
        recorder: &mut Recorder<'_>,
        x: &Slice,
        rows: usize,
        next: Option<&NextNorm<'_>>,
    ) -> Result<()> {
        let MoeConfig { experts, top_k, .. } = self.config;
        let scores = recorder.transient("router_scores", rows * experts * 4)?; // [rows, experts]
        let normed = self.encode_scores(recorder, x, rows, &scores)?;
        let ids = recorder.transient("expert_ids", rows * top_k * 4)?; // [rows, top_k]
        let weights = recorder.transient("expert_weights", rows * top_k * 4)?; // [rows, top_k]
        let router = Router {
            logits: scores,
            ids: ids.clone(),
            weights: weights.clone(),
            rows,
            experts,
            top_k,
            scores: Scores::Softmax,
            normalise: if self.config.normalise { Normalise::SumToOne } else { Normalise::Keep },
        };
        let left = match self.halves(recorder, rows) {
            Some(gate_up) => self.encode_halves(recorder, gate_up, normed, router, x)?,
            None => {
                recorder.record(&router)?;
                self.encode_parts(recorder, &normed, Chosen { ids, weights, rows }, x)?
            }
        };
        match (next, left) {
            (Some(next), left) => next.encode(recorder, left, rows),
            (None, NormInput::Combined(combine)) => Ok(recorder.record(&combine)?),
            (None, NormInput::Given(_)) => Ok(()),
        }
    }

    /// The router's scores of `x` normalised, and the normalised rows as the experts take them.
    fn encode_scores(
        &self,
        recorder: &mut Recorder<'_>,
        x: &Slice,
        rows: usize,
        scores: &Slice,
    ) -> Result<Activations> {
        let input = self.gate_up.input(self.precision);
        let one_term = matches!(input, Input::Int8 { terms: Terms::One, .. });
        if one_term && self.gate.input() == Input::F32 && self.gate.normalises(recorder, rows) {
            let normed = activations(recorder, rows, self.hidden, input)?; // [rows, hidden]
            if let Activations::Int8(int8) = &normed {
                let form = NormedForm::F32(int8.clone());
                self.gate.encode_normed(recorder, (&self.norm, x), form, scores)?;
                return Ok(normed);
            }
        }
        // The router takes f32. [rows, hidden]
        let (plain, normed) = self.norm.encode_with_f32(recorder, x, rows, input)?;
        self.gate.encode(recorder, &Activations::F32(plain), rows, scores, Write::Store)?;
        Ok(normed)
    }

    /// The matrices of gate and up, where few rows of this layer are two launches, gate and up with what comes between
    /// them, and down with the sum of what the experts gave.
    fn halves(&self, recorder: &Recorder<'_>, rows: usize) -> Option<&Matrix> {
        let GateUp::One(gate_up) = &self.gate_up else { return None };
        let limits = recorder.runtime().catalog().gpu()?;
        let one_term = |matrix: &Matrix| {
            matches!(input_of(matrix, self.precision), Input::Int8 { terms: Terms::One, .. })
        };
        let top_k = self.config.top_k;
        let taken = one_term(gate_up)
            && one_term(&self.down)
            && GatedExperts::takes(&gate_up.layout, rows * top_k, limits)
            && CombinedExperts::takes(&self.down.layout, rows, top_k, limits);
        taken.then_some(gate_up)
    }

    /// The experts in two launches; what is left of `x` to do.
    fn encode_halves(
        &self,
        recorder: &mut Recorder<'_>,
        gate_up: &Matrix,
        normed: Activations,
        router: Router,
        x: &Slice,
    ) -> Result<NormInput> {
        let MoeConfig { experts, top_k, width, .. } = self.config;
        let (ids, shares, rows) = (router.ids.clone(), router.weights.clone(), router.rows);
        let slots = rows * top_k;
        let chosen = if SlotExperts::chooses(experts) {
            SlotExperts::Chosen(router)
        } else {
            recorder.record(&router)?;
            SlotExperts::Given(ids.clone())
        };
        let gated = recorder.transient("gated", slots * width * 4)?; // [slots, width]
        recorder.record(&GatedExperts {
            x: normed,
            weights: gate_up.weights(None),
            experts: chosen,
            top_k,
            out: gated.clone(),
            slots,
            activation: GateActivation::Silu,
        })?;
        recorder.record(&CombinedExperts {
            x: gated,
            weights: self.down.weights(None),
            ids,
            shares,
            out: x.clone(),
            rows,
            top_k,
        })?;
        Ok(NormInput::Given(x.clone()))
    }

    /// The experts a matrix at a time; what is left of `x` to do.
    fn encode_parts(
        &self,
        recorder: &mut Recorder<'_>,
        normed: &Activations,
        chosen: Chosen,
        x: &Slice,
    ) -> Result<NormInput> {
        let MoeConfig { top_k, width, .. } = self.config;
        let Chosen { ids, weights, rows } = chosen;
        let routing = Routing { order: self.sort(recorder, &ids, rows)?, ids, rows };
        let slots = rows * top_k;
        let tokens = SlotInput::Token { top_k: top_k as u32 };
        let (gate, up) = match &self.gate_up {
            GateUp::One(matrix) => {
                let y = self.experts(recorder, matrix, normed, tokens, &routing)?; // [slots, 2 width]
                let part = |offset| View { slice: y.clone(), stride: 2 * width, offset };
                (part(0), part(width))
            }
            GateUp::Each(gate, up) => {
                let mut one = |matrix| self.experts(recorder, matrix, normed, tokens, &routing);
                (View::dense(one(gate)?, width), View::dense(one(up)?, width))
            }
        };
        let gated =
            produce(recorder, slots, width, input_of(&self.down, self.precision), |recorder, out| {
                Ok(recorder.record(&Gated {
                    gate,
                    up,
                    out,
                    rows: slots,
                    dim: width,
                    activation: GateActivation::Silu,
                })?)
            })?; // [slots, width]
        let y = self.experts(recorder, &self.down, &gated, SlotInput::Slot, &routing)?; // [slots, hidden]
        Ok(NormInput::Combined(Combine { y, weights, out: x.clone(), rows, top_k, dim: self.hidden }))
    }

    /// The slots by expert, where the products that follow read them.
    fn sort(&self, recorder: &mut Recorder<'_>, ids: &Slice, rows: usize) -> Result<Option<SlotOrder>> {
        let MoeConfig { experts, top_k, .. } = self.config;
        if !Experts::reads_order(rows * top_k, experts, recorder.runtime().catalog().gpu()) {
            return Ok(None);
        }
        let offsets = recorder.transient("expert_offsets", (experts + 1) * 4)?;
        let order = recorder.transient("expert_order", rows * top_k * 4)?;
        let (ids, sorted) = (ids.clone(), SlotOrder { offsets, order });
        let SlotOrder { offsets, order } = sorted.clone();
        recorder.record(&ExpertSort { ids, offsets, order, rows, experts, top_k })?;
        Ok(Some(sorted))
    }

    /// One matrix of every expert over the slots that were routed to it: [slots, out].
    fn experts(
        &self,
        recorder: &mut Recorder<'_>,
        matrix: &Matrix,
        x: &Activations,
        input: SlotInput,
        routing: &Routing,
    ) -> Result<Slice> {
        let top_k = self.config.top_k;
        let input_rows = match input {
            SlotInput::Token { .. } => routing.rows,
            SlotInput::Slot => routing.rows * top_k,
        };
        let x = convert(recorder, x, input_rows, matrix.layout.inp(), input_of(matrix, self.precision))?;
        let y = recorder.transient("expert_out", routing.rows * top_k * matrix.layout.out() * 4)?;
        recorder.record(&Experts {
            x,
            weights: matrix.weights(None),
            input,
            ids: routing.ids.clone(),
            order: routing.order.clone(),
            out: y.clone(),
            slots: routing.rows * top_k,
        })?;
        Ok(y)
    }
}

/// What the router chose.
struct Chosen {
    /// u32 [rows, top_k].
    ids: Slice,
    /// f32 [rows, top_k].
    weights: Slice,
    rows: usize,
}

/// The expert of each slot, and, where somebody reads them, the slots of each expert.
struct Routing {
    ids: Slice,
    order: Option<SlotOrder>,
    rows: usize,
}
