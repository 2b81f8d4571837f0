//! One short file per family: which parts a decoder layer of it has.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use crate::Result;
use crate::config::Architecture;
use crate::layers::decoder::Decoder;
use crate::loader::Loader;

/// Loads the network that the configuration names.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Decoder> {
    match loader.config.architecture {
        Architecture::Llama => llama::load(loader),
        Architecture::Mistral => mistral::load(loader),
        Architecture::Qwen2 => qwen2::load(loader),
        Architecture::Qwen3 => qwen3::load(loader),
        Architecture::Qwen3Moe => qwen3_moe::load(loader),
    }
}
