//! Verdicts that outlive the process: a small file for each device, model and setting.
//!
//! A file holds the whole of what it is about, and is believed only when that is the same. One that cannot be read or
//! understood counts as missing, and the next verdict takes its place.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use bessemer_hal::DeviceInfo;
use bessemer_runtime::{Optimizations, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::EngineInfo;

/// The verdicts on a model on a device.
#[derive(Debug)]
pub(crate) struct Verdicts {
    /// Where the files are; absent where nothing is kept.
    folder: Option<PathBuf>,
    /// Program, device and model.
    subject: String,
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    subject: String,
    settings: String,
    verdict: Verdict,
}

impl Verdicts {
    /// Those on a model, of which `config` is the `config.json`, on a device, by this version of the program.
    pub(crate) fn new(
        folder: Option<PathBuf>,
        device: &DeviceInfo,
        model: &EngineInfo,
        config: &Value,
    ) -> Self {
        let DeviceInfo { name, backend, features, limits } = device;
        // The driver is among the features.
        let device = format!("{backend:?} {name}, {} workers, {}", limits.workers, features.join(", "));
        let EngineInfo { model, weight_bytes, weight_format, activations, kv_type, block_size, .. } = model;
        let config = hash(&config.to_string());
        let model = format!(
            "{model}, config {config:016x}, {weight_bytes} bytes, {weight_format}, activations {activations}, \
             KV {kv_type} in blocks of {block_size}"
        );
        Self { folder, subject: format!("bessemer {} / {device} / {model}", env!("CARGO_PKG_VERSION")) }
    }

    /// The verdict on these settings, if one was kept.
    pub(crate) fn find(&self, settings: &Optimizations) -> Option<Verdict> {
        let path = self.path(settings)?;
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("the self-check's verdict {} is not read: {error}", path.display());
                return None;
            }
        };
        match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) if kept.subject == self.subject && kept.settings == spelled(settings) => {
                Some(kept.verdict)
            }
            // Another one's whose name is the same by chance.
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(
                    "the self-check's verdict {} is damaged: {error}; it is made anew",
                    path.display()
                );
                None
            }
        }
    }

    /// Keeps a verdict. Failure is only noted: the next start checks again.
    pub(crate) fn keep(&self, settings: &Optimizations, verdict: &Verdict) {
        let Some(path) = self.path(settings) else { return };
        let kept =
            Kept { subject: self.subject.clone(), settings: spelled(settings), verdict: verdict.clone() };
        let written = serde_json::to_vec_pretty(&kept)
            .map_err(std::io::Error::from)
            .and_then(|text| replace(&path, &text));
        if let Err(error) = written {
            tracing::warn!("the self-check's verdict {} is not written: {error}", path.display());
        }
    }

    fn path(&self, settings: &Optimizations) -> Option<PathBuf> {
        let name = hash(&(&self.subject, spelled(settings)));
        Some(self.folder.as_ref()?.join(format!("{name:016x}.json")))
    }
}

/// Every setting, by name, but for those that only say what is logged: who wants to hear more of a running server
/// must not send it back to the plain path.
fn spelled(settings: &Optimizations) -> String {
    format!("{:?}", settings.without_logging())
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Writes a file in one step: readers see the old one or the new one.
fn replace(path: &Path, data: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::File::create(&fresh)?;
    let written = file.write_all(data).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() && std::fs::remove_file(&fresh).is_err() {
        tracing::debug!("{} is left behind", fresh.display());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let verdicts = Verdicts { folder: Some(folder.path().to_owned()), subject: "a test".into() };
        let settings = Optimizations::default();
        for step in 0..300 {
            let verdict = Verdict::same_tokens(f64::from(step).sqrt() / 7.0, 1_795_280_400);
            verdicts.keep(&settings, &verdict);
            assert_eq!(verdicts.find(&settings), Some(verdict));
        }
    }
}
