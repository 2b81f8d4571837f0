//! The commands, one file each.

mod bench;
mod chat;
mod config;
mod generate;
mod info;
mod logits;
mod perplexity;
mod selftest;
mod serve;
mod soak;
mod synth;
mod top;

pub use bench::Bench;
pub use chat::Chat;
pub use config::Config;
pub use generate::Generate;
pub use info::Info;
pub use logits::Logits;
pub use perplexity::Perplexity;
pub use selftest::Selftest;
pub use serve::Serve;
pub use soak::Soak;
pub use synth::Synth;
pub use top::Top;
