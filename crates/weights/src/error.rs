//! What can go wrong between a file and a network: each message names the thing, the rule, the value and a cure.

use std::path::PathBuf;

use crate::DType;

/// Shorthand for results of this crate.
pub type Result<T, E = WeightsError> = std::result::Result<T, E>;

/// Why a checkpoint could not be opened or does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A JSON file is not JSON.
    #[error("{file}: not valid JSON: {source}. Download the file again or correct it")]
    Json {
        /// The file.
        file: String,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A safetensors file breaks the format.
    #[error("{file}: {rule}. The file is damaged or incomplete: download it again")]
    Safetensors {
        /// The file.
        file: String,
        /// The broken rule, with tensor and value.
        rule: String,
    },
    /// A model folder does not hold what it must.
    #[error("{folder}: {rule}. {cure}")]
    Folder {
        /// The folder or the index file.
        folder: String,
        /// The broken rule, with file, tensor and value.
        rule: String,
        /// What to do.
        cure: &'static str,
    },
    /// A tensor that the network needs is not there.
    #[error(
        "{model}: tensor {tensor:?} is missing: {rule}. Check that `architectures` in config.json belongs to this \
         checkpoint, or download it again"
    )]
    Missing {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// Who needs it.
        rule: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error(
        "{model}: tensor {tensor:?} has shape {found:?}, but config.json implies {expected:?} ({rule}). Check that \
         config.json belongs to this checkpoint"
    )]
    Shape {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// The stored shape.
        found: Vec<usize>,
        /// The implied shape.
        expected: Vec<usize>,
        /// How the implied shape comes about.
        rule: String,
    },
    /// A tensor has a type that cannot be used in its place.
    #[error(
        "{model}: tensor {tensor:?} has type {found}, but {allowed} is needed. Convert the checkpoint again"
    )]
    Type {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// The stored type.
        found: DType,
        /// The types that would do.
        allowed: &'static str,
    },
    /// `quantization` in config.json, or the tensors that follow from it, make no sense.
    #[error("config.json: {field} is {value}, but {rule}. {cure}")]
    Quantisation {
        /// The field, or the layer it applies to.
        field: String,
        /// The given value.
        value: String,
        /// The rule it breaks.
        rule: String,
        /// What to do.
        cure: &'static str,
    },
    /// Tensors that nobody took.
    #[error(
        "{model}: {count} tensors are in the checkpoint but not in the network: {first}. The network in config.json is \
         not the one these weights were made for, or this architecture is only partly supported"
    )]
    Leftover {
        /// The model.
        model: String,
        /// How many there are.
        count: usize,
        /// The first few names.
        first: String,
    },
    /// The hub does not give the model.
    #[error("Hugging Face model {id:?}: {rule}. {cure}")]
    Hub {
        /// `org/name[@revision]`.
        id: String,
        /// What is wrong, with file and status.
        rule: String,
        /// What to do.
        cure: String,
    },
    /// The name given for a model means nothing.
    #[error("model {name:?}: {rule}. {cure}")]
    Name {
        /// What was typed.
        name: String,
        /// The rule it breaks.
        rule: String,
        /// What to type instead.
        cure: String,
    },
}

impl WeightsError {
    /// An [`WeightsError::Io`] for `path`; made for `map_err`.
    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}
