//! Qwen 3: q and k are normalised per head; the upper layers may slide.

use crate::Result;
use crate::layers::attention::{Attention, AttentionBias, AttentionSpec, HeadNorm};
use crate::layers::decoder::{Decoder, DecoderLayer, FeedForward};
use crate::layers::mlp::Mlp;
use crate::loader::Loader;

pub(super) fn load(loader: &Loader<'_>) -> Result<Decoder> {
    let config = loader.config;
    Decoder::load(loader, |prefix, layer| {
        let attention = AttentionSpec {
            bias: AttentionBias::all_if(config.attention_bias),
            head_norm: HeadNorm::Rms,
            window: config.windows[layer],
        };
        Ok(DecoderLayer {
            attention: Attention::load(loader, prefix, attention)?,
            feed_forward: FeedForward::Dense(Box::new(Mlp::load(loader, prefix, false)?)),
        })
    })
}
