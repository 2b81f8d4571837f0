//! Llama 2 and 3: grouped-query attention, a gated dense layer; biases where the configuration says so.

use crate::Result;
use crate::layers::attention::{Attention, AttentionBias, AttentionSpec, HeadNorm};
use crate::layers::decoder::{Decoder, DecoderLayer, FeedForward};
use crate::layers::mlp::Mlp;
use crate::loader::Loader;

pub(super) fn load(loader: &Loader<'_>) -> Result<Decoder> {
    let config = loader.config;
    Decoder::load(loader, |prefix, _| {
        let attention = AttentionSpec {
            bias: AttentionBias::all_if(config.attention_bias),
            head_norm: HeadNorm::None,
            window: None,
        };
        Ok(DecoderLayer {
            attention: Attention::load(loader, prefix, attention)?,
            feed_forward: FeedForward::Dense(Box::new(Mlp::load(loader, prefix, config.mlp_bias)?)),
        })
    })
}
