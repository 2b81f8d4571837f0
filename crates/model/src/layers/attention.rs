//! Self-attention over the paged cache.

use bessemer_hal::Slice;
use bessemer_kernels::Activations;
use bessemer_kernels::attention::{Attention as AttentionOp, TurnedAttention};
use bessemer_kernels::linear::Write;
use bessemer_kernels::rope::{RopeKv, RopeLayout};
use bessemer_runtime::Recorder;

use crate::batch::Batch;
use crate::kv_cache::KvCache;
use crate::layers::linear::{Fused, Input, Linear, activations, convert};
use crate::layers::norm::Norm;
use crate::loader::Loader;
use crate::{ModelConfig, Result};

/// What an architecture's attention has beside its four projections.
#[derive(Clone, Copy)]
pub(crate) struct AttentionSpec {
    pub(crate) bias: AttentionBias,
    pub(crate) head_norm: HeadNorm,
    /// How many tokens back a query sees, itself included; all when absent.
    pub(crate) window: Option<usize>,
}

/// Which projections carry an additive bias.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttentionBias {
    None,
    Qkv,
    All,
}

impl AttentionBias {
    /// On all projections or on none.
    pub(crate) fn all_if(on: bool) -> Self {
        if on { Self::All } else { Self::None }
    }

    fn on_qkv(self) -> bool {
        self != Self::None
    }
}

/// How q and k are normalised per head before they turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadNorm {
    None,
    Rms,
}

/// `input_layernorm` and `self_attn` of a decoder layer.
pub(crate) struct Attention {
    norm: Norm,
    qkv: Fused,
    q_norm: Option<Slice>,
    k_norm: Option<Slice>,
    o: Linear,
    window: Option<usize>,
}

impl Attention {
    /// `prefix` is the decoder layer's.
    pub(crate) fn load(loader: &Loader<'_>, prefix: &str, spec: AttentionSpec) -> Result<Self> {
        let ModelConfig { hidden_size, heads, kv_heads, head_dim, .. } = *loader.config;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let head_norm = spec.head_norm == HeadNorm::Rms;
        let own = format!("{prefix}.self_attn");
        let parts = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
        Ok(Self {
            norm: Norm::load(loader, &format!("{prefix}.input_layernorm"), hidden_size)?,
            qkv: Fused::load(loader, &own, &parts, hidden_size, spec.bias.on_qkv())?,
            q_norm: loader.vector_if(head_norm, &format!("{own}.q_norm.weight"), head_dim)?,
            k_norm: loader.vector_if(head_norm, &format!("{own}.k_norm.weight"), head_dim)?,
            o: Linear::load(
                loader,
                &format!("{own}.o_proj"),
                hidden_size,
                q,
                spec.bias == AttentionBias::All,
            )?,
            window: spec.window,
        })
    }

    /// The norm that comes before everything else.
    pub(crate) fn norm(&self) -> &Norm {
        &self.norm
    }

    /// Whether it normalises such rows itself.
    pub(crate) fn normalises(&self, recorder: &Recorder<'_>, rows: usize) -> bool {
        self.qkv.normalises(recorder, rows)
    }

    /// The activations that it takes.
    pub(crate) fn input(&self) -> Input {
        self.qkv.input()
    }

    /// `x += o(attention(norm(x)))`, and the rows' keys and values go to the cache.
    pub(crate) fn encode(&self, recorder: &mut Recorder<'_>, step: &AttentionStep<'_>) -> Result<()> {
        let AttentionStep { config, batch, kv, layer, rope_table, normed, x } = *step;
        let ModelConfig { hidden_size, heads, kv_heads, head_dim, .. } = *config;
        let rows = batch.rows;
        let cache = &kv.layers[layer];

        // [rows, (heads + 2 kv_heads) · head_dim]
        let qkv = match normed {
            Some(normed) => self.qkv.encode(recorder, normed, rows, hidden_size)?,
            None => self.qkv.encode_normed(recorder, &self.norm, x, (rows, hidden_size))?,
        };
        let [q, k, v] = qkv.try_into().unwrap_or_else(|_| unreachable!("three parts were loaded"));

        let turned = recorder.transient("q", rows * heads * head_dim * 4)?; // [rows, heads · head_dim]
        let turn = RopeKv {
            q,
            k,
            v,
            q_norm: self.q_norm.clone(),
            k_norm: self.k_norm.clone(),
            eps: config.norm_eps,
            table: rope_table.clone(),
            slots: batch.slots.clone(),
            q_out: turned.clone(),
            key_cache: cache.keys.clone(),
            value_cache: cache.values.clone(),
            kv_type: kv.kv_type,
            cache_rows: kv.rows,
            rows,
            heads,
            kv_heads,
            head_dim,
            rot: config.rope.rotated,
            layout: RopeLayout::Halves,
        };

        // As the output projection takes it, where heads are whole groups. [rows, heads · head_dim]
        let direct = match self.o.input() {
            Input::Int8 { group, .. } if !AttentionOp::quantises(head_dim, group) => Input::F32,
            input => input,
        };
        let mixed = activations(recorder, rows, heads * head_dim, direct)?;
        let attention = AttentionOp {
            q: turned,
            key_cache: cache.keys.clone(),
            value_cache: cache.values.clone(),
            kv_type: kv.kv_type,
            cache_rows: kv.rows,
            block_size: kv.block_size,
            out: mixed.clone(),
            row_seq: batch.row_seq.clone(),
            positions: batch.positions.clone(),
            block_tables: batch.block_tables.clone(),
            blocks_per_seq: batch.blocks_per_seq,
            rows,
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: self.window,
        };
        let limits = recorder.runtime().catalog().gpu();
        if limits.is_some_and(|limits| TurnedAttention::takes(&attention, limits)) {
            recorder.record(&TurnedAttention { turn, attention })?;
        } else {
            recorder.record(&turn)?;
            recorder.record(&attention)?;
        }

        let mixed = convert(recorder, &mixed, rows, heads * head_dim, self.o.input())?;
        self.o.encode(recorder, &mixed, rows, x, Write::Add)
    }
}

/// What a step hands to each attention layer.
#[derive(Clone, Copy)]
pub(crate) struct AttentionStep<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) batch: &'a Batch,
    pub(crate) kv: &'a KvCache,
    pub(crate) layer: usize,
    /// Cosines and sines of the rows' positions.
    pub(crate) rope_table: &'a Slice,
    /// What [`Attention::norm`] made of `x`, as [`Attention::input`] says; `None` where it does that itself. [rows, hidden]
    pub(crate) normed: Option<&'a Activations>,
    /// The residual stream, f32 [rows, hidden].
    pub(crate) x: &'a Slice,
}
