//! Which configuration file is read, and what is in it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bessemer_config::ConfigFile;

use crate::environment;

/// The file that is taken where nobody names one, if it is there.
pub const USUAL: &str = "config/runtime.yaml";

/// The file to read: the one that was asked for, else that of the environment, else [`USUAL`] where it is.
pub fn find(asked: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = asked {
        return Ok(Some(path.to_owned()));
    }
    if let Some(path) = environment::variable(environment::CONFIG)? {
        return Ok(Some(path.into()));
    }
    Ok(Path::new(USUAL).exists().then(|| USUAL.into()))
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, is too long, or is not text.
pub fn read(path: &Path) -> anyhow::Result<ConfigFile> {
    let shown = path.display();
    let cure = "Give another with --config, or write one with `bessemer config init`";
    let file = File::open(path).with_context(|| format!("{shown}: cannot read it. {cure}"))?;
    let mut bytes = Vec::new();
    let limit = ConfigFile::MAX_BYTES as u64;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{shown}: cannot read it. {cure}"))?;
    if bytes.len() as u64 > limit {
        bail!("{shown}: it must have at most {limit} bytes, but has more. {cure}");
    }
    let Ok(text) = String::from_utf8(bytes) else { bail!("{shown}: it is not UTF-8 text. {cure}") };
    Ok(ConfigFile { path: shown.to_string().into(), text })
}
