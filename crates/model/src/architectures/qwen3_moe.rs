//! Qwen 3 with experts: Qwen 3's attention, experts in the layers that the configuration names, dense layers elsewhere.

use crate::Result;
use crate::layers::attention::{Attention, AttentionBias, AttentionSpec, HeadNorm};
use crate::layers::decoder::{Decoder, DecoderLayer, FeedForward};
use crate::layers::mlp::Mlp;
use crate::layers::moe::Moe;
use crate::loader::Loader;

pub(super) fn load(loader: &Loader<'_>) -> Result<Decoder> {
    let config = loader.config;
    let sparse = config.moe.as_ref().map(|moe| moe.sparse.as_slice()).unwrap_or_default();
    Decoder::load(loader, |prefix, layer| {
        let attention = AttentionSpec {
            bias: AttentionBias::all_if(config.attention_bias),
            head_norm: HeadNorm::Rms,
            window: config.windows[layer],
        };
        let feed_forward = match sparse.get(layer) {
            Some(true) => FeedForward::Sparse(Box::new(Moe::load(loader, prefix)?)),
            _ => FeedForward::Dense(Box::new(Mlp::load(loader, prefix, false)?)),
        };
        Ok(DecoderLayer { attention: Attention::load(loader, prefix, attention)?, feed_forward })
    })
}
