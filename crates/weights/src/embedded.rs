//! The models that ship inside the binary: it can answer without a download, and tests need no network.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::files::parse_json;
use crate::header::{Header, parse_safetensors_header};
use crate::{ModelFiles, Result, Tensor, TensorInfo, TensorSource, WeightsError};

/// The files of one model folder, as compiled in.
pub(crate) struct Embedded {
    pub(crate) name: &'static str,
    config: &'static [u8],
    generation_config: &'static [u8],
    tokenizer: &'static [u8],
    tokenizer_config: &'static [u8],
    chat_template: &'static str,
    tensors: &'static [u8],
}

macro_rules! embed {
    ($name:literal, $folder:literal) => {
        Embedded {
            name: $name,
            config: bytes_of!($folder, "config.json"),
            generation_config: bytes_of!($folder, "generation_config.json"),
            tokenizer: bytes_of!($folder, "tokenizer.json"),
            tokenizer_config: bytes_of!($folder, "tokenizer_config.json"),
            chat_template: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../models/",
                $folder,
                "/chat_template.jinja"
            )),
            tensors: bytes_of!($folder, "model.safetensors"),
        }
    };
}

macro_rules! bytes_of {
    ($folder:literal, $file:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/", $folder, "/", $file))
    };
}

/// The mixture-of-experts story model: the default of the whole program.
pub(crate) static STORYTELLER: Embedded = embed!("storyteller", "storyteller-4bit");

/// Its distilled draft, for speculative decoding.
pub(crate) static STORYTELLER_DRAFT: Embedded = embed!("storyteller-draft", "storyteller-draft-4bit");

/// Names under which embedded models open.
pub fn embedded_models() -> [&'static str; 3] {
    ["default", STORYTELLER.name, STORYTELLER_DRAFT.name]
}

/// The embedded model of this name.
pub(crate) fn find(name: &str) -> Option<&'static Embedded> {
    match name {
        "default" | "storyteller" => Some(&STORYTELLER),
        "storyteller-draft" => Some(&STORYTELLER_DRAFT),
        _ => None,
    }
}

impl Embedded {
    /// The model as if it had been opened from its folder.
    pub(crate) fn open(&'static self) -> Result<ModelFiles> {
        let parse = |file, bytes| parse_json(&format!("{} (embedded) {file}", self.name), bytes);
        Ok(ModelFiles {
            name: self.name.into(),
            config: parse("config.json", self.config)?,
            generation_config: Some(parse("generation_config.json", self.generation_config)?),
            tokenizer_json: Some(Cow::Borrowed(self.tokenizer)),
            tokenizer_config: Some(self.tokenizer_config()?),
            chat_template: Some(self.chat_template.into()),
            tensors: Arc::new(EmbeddedSource {
                header: parse_safetensors_header(self.name, self.tensors)?,
                bytes: self.tensors,
            }),
            bytes_on_disk: self.tensors.len() as u64,
        })
    }

    /// `tokenizer.json`.
    pub(crate) fn tokenizer(&self) -> Cow<'static, [u8]> {
        Cow::Borrowed(self.tokenizer)
    }

    /// `tokenizer_config.json`.
    pub(crate) fn tokenizer_config(&self) -> Result<Value> {
        parse_json(&format!("{} (embedded) tokenizer_config.json", self.name), self.tokenizer_config)
    }

    /// `chat_template.jinja`.
    pub(crate) fn chat_template(&self) -> &'static str {
        self.chat_template
    }
}

struct EmbeddedSource {
    header: Header,
    bytes: &'static [u8],
}

impl TensorSource for EmbeddedSource {
    fn names(&self) -> Vec<String> {
        self.header.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        Some(self.header.tensors.get(name)?.info.clone())
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>> {
        let found = self.header.tensors.get(name).and_then(|entry| {
            Some(Tensor {
                name: name.into(),
                dtype: entry.info.dtype,
                shape: entry.info.shape.clone(),
                bytes: self.bytes.get(entry.range.clone())?.into(),
            })
        });
        found.ok_or_else(|| WeightsError::Missing {
            model: "embedded model".into(),
            tensor: name.into(),
            rule: "the binary does not hold it".into(),
        })
    }
}
