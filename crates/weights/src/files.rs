//! From what a user typed to the files of a model.
//!
//! In this order: an **embedded** model's name, `synth:…`, an existing **folder**, a Hugging Face **id**. A folder beats
//! an id of the same spelling, because what lies on the user's disk is what they mean.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::folder::FolderSource;
use crate::hub::{self, HubId, HubOptions, Progress};
use crate::{Result, TensorSource, WeightsError, embedded, synth};

/// How to open a model.
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// Seed of the weights of `synth:` models.
    pub seed: u64,
    /// Branch, tag or commit of a Hugging Face id; `org/name@revision` says the same.
    pub revision: Option<String>,
    /// Told about downloads.
    pub progress: Option<Arc<dyn Progress>>,
    /// Where the hub and its cache are; from the environment if `None`.
    pub hub: Option<HubOptions>,
}

/// Everything a model consists of. Nothing has been read from the tensors yet.
#[derive(Clone)]
pub struct ModelFiles {
    /// What messages call the model.
    pub name: String,
    /// `config.json`.
    pub config: Value,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
    /// `tokenizer.json`.
    pub tokenizer_json: Option<Cow<'static, [u8]>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Value>,
    /// The chat template: `chat_template.jinja`, `chat_template.json`, or the one in `tokenizer_config.json`.
    pub chat_template: Option<String>,
    /// The weights.
    pub tensors: Arc<dyn TensorSource>,
    /// Bytes of the safetensors files; of generated models, the bytes they would have.
    pub bytes_on_disk: u64,
}

impl ModelFiles {
    /// Opens `default`, `storyteller`, `storyteller-draft`, `synth:SHAPE[:FORMAT]`, a folder, or `org/name[@revision]`.
    pub fn open(name: &str, options: &OpenOptions) -> Result<Self> {
        if let Some(model) = embedded::find(name) {
            return model.open();
        }
        if let Some(synthetic) = name.strip_prefix("synth:") {
            return synth::open(synthetic, options.seed);
        }
        let path = folder_path(name);
        if path.is_dir() {
            return Self::open_folder(name, &path);
        }
        if let Some(id) = HubId::parse(name, options.revision.as_deref()) {
            let environment;
            let hub = match &options.hub {
                Some(hub) => hub,
                None => {
                    environment = HubOptions::from_env()?;
                    &environment
                }
            };
            return Self::open_folder(name, &hub::fetch(&id, hub, options.progress.as_ref())?);
        }
        let embedded = embedded::embedded_models().join(", ");
        Err(WeightsError::Name {
            name: name.into(),
            rule: "there is no such folder, and it is neither an embedded model nor a Hugging Face id".into(),
            cure: format!(
                "Give one of {embedded}, an existing folder, synth:SHAPE, or an id such as org/name"
            ),
        })
    }

    /// Opens the model in `folder`; `name` is what messages call it.
    pub fn open_folder(name: &str, folder: &Path) -> Result<Self> {
        let Some(config) = read_json(folder, "config.json")? else {
            return Err(WeightsError::Folder {
                folder: folder.display().to_string(),
                rule: "it has no config.json".into(),
                cure: "Give the folder that holds config.json and the .safetensors files",
            });
        };
        let tokenizer_config = read_json(folder, "tokenizer_config.json")?;
        let tensors = FolderSource::open(folder)?;
        Ok(Self {
            name: name.into(),
            config,
            generation_config: read_json(folder, "generation_config.json")?,
            tokenizer_json: read(folder, "tokenizer.json")?.map(Cow::Owned),
            chat_template: chat_template(folder, tokenizer_config.as_ref())?,
            tokenizer_config,
            bytes_on_disk: tensors.bytes(),
            tensors: Arc::new(tensors),
        })
    }
}

impl std::fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFiles")
            .field("name", &self.name)
            .field("bytes_on_disk", &self.bytes_on_disk)
            .finish_non_exhaustive()
    }
}

/// `~/…` as the shell would have it: in configuration files no shell expands it.
fn folder_path(name: &str) -> PathBuf {
    match (name.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(name),
    }
}

/// JSON from bytes; `file` is only for messages.
pub(crate) fn parse_json(file: &str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|source| WeightsError::Json { file: file.into(), source })
}

fn read(folder: &Path, file: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(WeightsError::io(&path, "read it")(error)),
    }
}

fn read_json(folder: &Path, file: &str) -> Result<Option<Value>> {
    let path = folder.join(file).display().to_string();
    read(folder, file)?.map(|bytes| parse_json(&path, &bytes)).transpose()
}

fn chat_template(folder: &Path, tokenizer_config: Option<&Value>) -> Result<Option<String>> {
    if let Some(bytes) = read(folder, "chat_template.jinja")? {
        let text = String::from_utf8(bytes).map_err(|_| WeightsError::Folder {
            folder: folder.join("chat_template.jinja").display().to_string(),
            rule: "it is not UTF-8 text".into(),
            cure: "Download the file again",
        })?;
        return Ok(Some(text));
    }
    let json = read_json(folder, "chat_template.json")?;
    let template = json.as_ref().or(tokenizer_config).and_then(|json| json.get("chat_template"));
    Ok(template.and_then(|template| match template {
        Value::String(text) => Some(text.clone()),
        // Several named templates: the one called "default" is for plain chat.
        Value::Array(list) => list
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| Some(entry.get("template")?.as_str()?.to_owned())),
        _ => None,
    }))
}
