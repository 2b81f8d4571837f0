//! The decoder: embedding, layers, output.

use bessemer_hal::Slice;
use bessemer_kernels::Activations;
use bessemer_kernels::gather::GatherRows;
use bessemer_kernels::linear::{Embedding, Write};
use bessemer_kernels::rms_norm::NormInput;
use bessemer_kernels::rope::{RopeTable, inv_freq};
use bessemer_runtime::Recorder;

use crate::batch::Batch;
use crate::kv_cache::KvCache;
use crate::layers::attention::{Attention, AttentionStep};
use crate::layers::linear::{Input, Linear, activations};
use crate::layers::mlp::Mlp;
use crate::layers::moe::Moe;
use crate::layers::norm::{NextNorm, Norm};
use crate::loader::{Loader, Matrix};
use crate::{ModelConfig, ModelError, Result};

/// A whole network.
pub(crate) struct Decoder {
    embed_tokens: Matrix,
    layers: Vec<DecoderLayer>,
    norm: Norm,
    lm_head: Linear,
    inv_freq: Slice,
    attention_factor: f32,
}

/// One layer of it.
pub(crate) struct DecoderLayer {
    pub(crate) attention: Attention,
    pub(crate) feed_forward: FeedForward,
}

/// The second half of a layer.
pub(crate) enum FeedForward {
    Dense(Box<Mlp>),
    Sparse(Box<Moe>),
}

/// Memory for the rows that layers begin with: they live from layer to layer, and all layers that take the same kind
/// share it.
#[derive(Default)]
struct Rooms(Vec<(Input, Activations)>);

impl Rooms {
    /// The norm that `layer` begins with, and room for what it makes; `None` where it does that itself.
    fn next_norm<'a>(
        &mut self,
        recorder: &mut Recorder<'_>,
        layer: &'a DecoderLayer,
        rows: usize,
        hidden: usize,
    ) -> Result<Option<NextNorm<'a>>> {
        if layer.attention.normalises(recorder, rows) {
            return Ok(None);
        }
        let input = layer.attention.input();
        let known = self.0.iter().find(|(kind, _)| *kind == input).map(|(_, room)| room.clone());
        let out = match known {
            Some(room) => room,
            None => {
                let room = activations(recorder, rows, hidden, input)?;
                self.0.push((input, room.clone()));
                room
            }
        };
        Ok(Some(NextNorm { norm: layer.attention.norm(), out }))
    }
}

impl Decoder {
    /// Loads what all architectures share; `layer` loads layer `index` under its prefix.
    pub(crate) fn load(
        loader: &Loader<'_>,
        layer: impl Fn(&str, usize) -> Result<DecoderLayer>,
    ) -> Result<Self> {
        let config = loader.config;
        let embed_tokens = loader.matrix("model.embed_tokens", config.vocab_size, config.hidden_size)?;
        let layers = (0..config.layers)
            .map(|index| layer(&format!("model.layers.{index}"), index))
            .collect::<Result<Vec<_>>>()?;
        let lm_head = match config.tied {
            true => embed_tokens.clone(),
            false => loader.matrix("lm_head", config.vocab_size, config.hidden_size)?,
        };
        let lm_head = Linear::new(lm_head, None, loader.final_precision());
        let rope = &config.rope;
        let (frequencies, attention_factor) =
            inv_freq(&rope.scaling, rope.theta, rope.rotated, config.context);
        Ok(Self {
            embed_tokens,
            layers,
            norm: Norm::load(loader, "model.norm", config.hidden_size)?,
            lm_head,
            inv_freq: loader.upload("inv_freq", &frequencies)?,
            attention_factor,
        })
    }

    /// Records the whole network; f32 logits [wanted, vocabulary].
    pub(crate) fn encode(
        &self,
        recorder: &mut Recorder<'_>,
        config: &ModelConfig,
        batch: &Batch,
        kv: &KvCache,
    ) -> Result<Slice> {
        if kv.layers.len() != self.layers.len() {
            return Err(ModelError::Batch(format!(
                "the cache has {} layers, the network {}",
                kv.layers.len(),
                self.layers.len()
            )));
        }
        let (rows, hidden, rot) = (batch.rows, config.hidden_size, config.rope.rotated);

        let x = recorder.transient("x", rows * hidden * 4)?; // [rows, hidden]
        recorder.record(&Embedding {
            weights: self.embed_tokens.weights(None),
            ids: batch.input_ids.clone(),
            out: x.clone(),
            rows,
            scale: 1.0,
        })?;
        let rope_table = recorder.transient("rope_table", rows * rot * 4)?; // [rows, rot]
        recorder.record(&RopeTable {
            positions: batch.positions.clone(),
            inv_freq: self.inv_freq.clone(),
            attention_factor: self.attention_factor,
            out: rope_table.clone(),
            rows,
            rot,
        })?;

        let mut rooms = Rooms::default();
        // A layer begins with rows that the one before it has normalised, unless it does that itself.
        let mut next = match self.layers.first() {
            Some(first) => rooms.next_norm(recorder, first, rows, hidden)?,
            None => None,
        };
        if let Some(first) = &next {
            first.encode(recorder, NormInput::Given(x.clone()), rows)?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = next.map(|norm| norm.out);
            next = match self.layers.get(index + 1) {
                Some(layer) => rooms.next_norm(recorder, layer, rows, hidden)?,
                None => None,
            };
            let (rope_table, normed) = (&rope_table, normed.as_ref());
            let step = AttentionStep { config, batch, kv, layer: index, rope_table, normed, x: &x };
            recorder.scoped(|recorder| layer.attention.encode(recorder, &step))?;
            recorder.scoped(|recorder| match &layer.feed_forward {
                FeedForward::Dense(mlp) => mlp.encode(recorder, &x, rows, next.as_ref()),
                FeedForward::Sparse(moe) => moe.encode(recorder, &x, rows, next.as_ref()),
            })?;
            recorder.end_layer()?;
        }

        let wanted = batch.wanted;
        let logits = recorder.transient("logits", wanted * config.vocab_size * 4)?; // [wanted, vocabulary]
        if wanted > 0 {
            // Of a single row there is nothing to choose.
            let last = if (rows, wanted) == (1, 1) {
                x
            } else {
                let last = recorder.transient("last_hidden", wanted * hidden * 4)?; // [wanted, hidden]
                recorder.record(&GatherRows {
                    x,
                    indices: batch.logit_rows.clone(),
                    out: last.clone(),
                    n: wanted,
                    dim: hidden,
                })?;
                last
            };
            let normed = self.norm.encode(recorder, &last, wanted, self.lm_head.input())?;
            self.lm_head.encode(recorder, &normed, wanted, &logits, Write::Store)?;
        }
        Ok(logits)
    }
}
