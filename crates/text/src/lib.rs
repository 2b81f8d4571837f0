//! Text on both sides of the engine: tokenizer, chat templates, incremental detokenizer.
//!
//! - **Leaf**: knows files' bytes, strings and token ids; nothing of models, devices or HTTP.
//! - **Foreign formats stay foreign**: `tokenizer.json` is read by Hugging Face's own `tokenizers` crate and templates
//!   by `minijinja`; what this crate adds is the behaviour around them that `transformers` has and they lack.
//! - **Hostile input is an error**: tokenizer files and templates come from strangers. Parsing, work and output are
//!   bounded, and a panic inside a foreign parser becomes a typed error.
//!
//! Known gap: a single template step may still be dear (doubling a string in a loop, repeating one to 100 MB), because
//! the template engine offers no hook on its operators; the number of steps and the final output are bounded.

mod chat_template;
mod detokenizer;
mod tokenizer;

pub use chat_template::{ChatInput, ChatTemplate, TemplateError, TokenStrings};
pub use detokenizer::Detokenizer;
pub use tokenizer::{SpecialTokens, Specials, Tokenizer, TokenizerError};
