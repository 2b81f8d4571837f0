//! The safetensors files of a model folder.
//!
//! - With `model.safetensors.index.json`, the **index** decides: the shards it names, and nothing else, are opened. A
//!   single `model.safetensors` beside its index (mlx-lm writes both) is the case of one shard.
//! - Without one, every `model*.safetensors` is a shard, as mlx-lm reads a folder.
//! - Index and shards must **agree** both ways: a tensor in one and not in the other means that the files do not belong
//!   together, which would otherwise show as a wrong answer.
//! - A shard name is a **file name**, never a path: an index cannot reach out of its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde_json::Value;

use crate::header::{HeaderEntry, parse_safetensors_header};
use crate::mapped::MappedFile;
use crate::{Result, Tensor, TensorInfo, TensorSource, WeightsError};

/// File name of the index of a sharded checkpoint.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

const AGAIN: &str = "Download the model again";

/// The mapped shards of one folder.
pub(crate) struct FolderSource {
    shards: Vec<Shard>,
    /// Tensor name → shard and place.
    tensors: BTreeMap<String, (usize, HeaderEntry)>,
}

struct Shard {
    name: String,
    file: MappedFile,
}

impl FolderSource {
    /// Maps and checks every shard of `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let index_path = folder.join(INDEX);
        let index = if index_path.is_file() {
            let text = std::fs::read(&index_path).map_err(WeightsError::io(&index_path, "read it"))?;
            Some(Index::parse(&index_path.display().to_string(), &text)?)
        } else {
            None
        };
        let names = match &index {
            Some(index) => index.shards(),
            None => shards_without_index(folder)?,
        };
        let mut source = Self { shards: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            source.add(folder, name)?;
        }
        if let Some(index) = &index {
            source.agree_with(index, &index_path)?;
        }
        Ok(source)
    }

    /// Bytes of all shards.
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.file.bytes().len() as u64).sum()
    }

    fn add(&mut self, folder: &Path, name: String) -> Result<()> {
        let path = folder.join(&name);
        if !path.exists() {
            return Err(WeightsError::Folder {
                folder: folder.join(INDEX).display().to_string(),
                rule: format!("it names the shard {name:?}, which is not in the folder"),
                cure: AGAIN,
            });
        }
        let file = MappedFile::open(&path)?;
        let header = parse_safetensors_header(&path.display().to_string(), file.bytes())?;
        let shard = self.shards.len();
        for (tensor, entry) in header.tensors {
            if let Some((first, _)) = self.tensors.get(&tensor) {
                let first = self.shards.get(*first).map_or("", |shard| &shard.name);
                return Err(WeightsError::Folder {
                    folder: folder.display().to_string(),
                    rule: format!("tensor {tensor:?} is in both {first:?} and {name:?}"),
                    cure: "Remove the files that do not belong to the model",
                });
            }
            self.tensors.insert(tensor, (shard, entry));
        }
        self.shards.push(Shard { name, file });
        Ok(())
    }

    fn agree_with(&self, index: &Index, path: &Path) -> Result<()> {
        let refuse = |rule: String| {
            Err(WeightsError::Folder { folder: path.display().to_string(), rule, cure: AGAIN })
        };
        for (tensor, shard) in &index.weight_map {
            match self.tensors.get(tensor).and_then(|(at, _)| self.shards.get(*at)) {
                None => {
                    return refuse(format!(
                        "it places tensor {tensor:?} in {shard:?}, which does not hold it"
                    ));
                }
                Some(found) if found.name != *shard => {
                    return refuse(format!(
                        "it places tensor {tensor:?} in {shard:?}, but the tensor is in {:?}",
                        found.name
                    ));
                }
                Some(_) => {}
            }
        }
        for (tensor, (at, _)) in &self.tensors {
            if !index.weight_map.contains_key(tensor) {
                let shard = self.shards.get(*at).map_or("", |shard| &shard.name);
                return refuse(format!("tensor {tensor:?} of {shard:?} is not listed in it"));
            }
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Option<(&Shard, &HeaderEntry)> {
        let (shard, entry) = self.tensors.get(name)?;
        Some((self.shards.get(*shard)?, entry))
    }
}

impl TensorSource for FolderSource {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        Some(self.place(name)?.1.info.clone())
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>> {
        let found = self.place(name).and_then(|(shard, entry)| {
            let bytes = shard.file.bytes().get(entry.range.clone())?;
            Some(Tensor {
                name: name.into(),
                dtype: entry.info.dtype,
                shape: entry.info.shape.clone(),
                bytes: bytes.into(),
            })
        });
        found.ok_or_else(|| WeightsError::Missing {
            model: self.shards.first().map_or_else(String::new, |shard| shard.name.clone()),
            tensor: name.into(),
            rule: "no shard holds it".into(),
        })
    }

    fn release(&self, name: &str) {
        if let Some((shard, entry)) = self.place(name) {
            shard.file.release(entry.range.clone());
        }
    }
}

/// `model.safetensors.index.json`: which shard holds which tensor.
pub(crate) struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads `weight_map`; `file` is only for messages.
    pub(crate) fn parse(file: &str, text: &[u8]) -> Result<Self> {
        let json: Value = serde_json::from_slice(text)
            .map_err(|source| WeightsError::Json { file: file.into(), source })?;
        let refuse = |rule: String| WeightsError::Folder { folder: file.into(), rule, cure: AGAIN };
        let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
            return Err(refuse("`weight_map` must be an object from tensor to shard".into()));
        };
        let mut weight_map = BTreeMap::new();
        for (tensor, shard) in map {
            let Some(shard) = shard.as_str() else {
                return Err(refuse(format!("tensor {tensor:?} is mapped to {shard}, not to a file name")));
            };
            if !is_file_name(shard) || !shard.ends_with(".safetensors") {
                return Err(refuse(format!(
                    "tensor {tensor:?} is mapped to {shard:?}, but a shard must be a .safetensors file in the same folder"
                )));
            }
            weight_map.insert(tensor.clone(), shard.to_owned());
        }
        if weight_map.is_empty() {
            return Err(refuse("`weight_map` names no tensor".into()));
        }
        Ok(Self { weight_map })
    }

    /// The shards it names, each once.
    pub(crate) fn shards(&self) -> Vec<String> {
        self.weight_map.values().cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\', '\0'])
}

fn shards_without_index(folder: &Path) -> Result<Vec<String>> {
    let single = "model.safetensors";
    if folder.join(single).is_file() {
        return Ok(vec![single.into()]);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(WeightsError::io(folder, "list it"))? {
        let entry = entry.map_err(WeightsError::io(folder, "list it"))?;
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with("model")
            && name.ends_with(".safetensors")
        {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(WeightsError::Folder {
            folder: folder.display().to_string(),
            rule: format!("it holds neither {single} nor {INDEX}"),
            cure: "Give the folder of a model in safetensors format, such as one that mlx_lm.convert wrote",
        });
    }
    names.sort();
    Ok(names)
}
