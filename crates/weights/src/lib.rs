//! Checkpoints: where models come from, what their files hold, and the checks between a file and a network.
//!
//! - **One door.** [`ModelFiles::open`] takes what a user types (an embedded model, a folder, `synth:…`, a
//!   Hugging Face id) and hands back the same thing for all of them: `config.json`, the tokenizer, the chat template
//!   and a [`TensorSource`].
//! - **Checked access.** A network reads its tensors through [`Weights`], which compares every shape and type with
//!   what the architecture expects, remembers what was taken and names what was left over.
//! - **Formats as stored.** [`LinearWeight`] hands out packed codes, scales and biases as they lie in the file; what a
//!   device does with them is its own business. [`dequantise`] is the plain reference that says what they mean.
//! - **No devices.** Nothing here knows how a kernel wants its weights laid out.
//! - **Untrusted input.** A checkpoint is somebody else's file: nothing in it may panic, escape its folder or make
//!   this crate allocate by a number it claims.

mod dequantise;
mod dtype;
mod embedded;
mod error;
mod files;
mod fill;
mod folder;
mod header;
mod hub;
mod mapped;
mod quantisation;
mod shapes;
mod synth;
mod tensor;
mod weights;

pub use dequantise::dequantise;
pub use dtype::DType;
pub use embedded::embedded_models;
pub use error::{Result, WeightsError};
pub use files::{ModelFiles, OpenOptions};
pub use header::{Header, HeaderEntry, parse_safetensors_header};
pub use hub::{Access, HubOptions, Progress};
pub use quantisation::{Format, Quantisation};
pub use synth::{SynthShape, synth_shapes};
pub use tensor::{Tensor, TensorInfo, TensorSource};
pub use weights::{LinearWeight, Weights};
