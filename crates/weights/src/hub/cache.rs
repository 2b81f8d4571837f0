//! The folder of one model in the cache.
//!
//! ```text
//! models--org--name/refs/main                   the commit that `main` meant when last seen
//! models--org--name/snapshots/COMMIT/config.json → ../../blobs/ETAG
//! models--org--name/blobs/ETAG                  a file's bytes
//! models--org--name/blobs/ETAG.incomplete       as far as they have come
//! .locks/models--org--name/ETAG.lock            held by whoever downloads it
//! ```
//!
//! The lock has a file of its own, never removed, because a lock on the partial file would be lost when that is renamed
//! or thrown away. `huggingface_hub` locks the same file, so the two wait for each other.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::SINGLE;
use super::id::{HubId, is_segment};
use crate::folder::{INDEX, Index};
use crate::{Result, WeightsError};

/// Paths of one model.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
    revision: String,
}

impl Cache {
    pub(super) fn new(cache: &Path, id: &HubId) -> Self {
        let name = format!("models--{}--{}", id.organisation, id.name);
        Self {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
            revision: id.revision.clone(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The snapshot of the revision, if every file of it is there.
    pub(super) fn snapshot(&self) -> Option<PathBuf> {
        let commit = std::fs::read_to_string(self.reference())
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| self.revision.clone());
        let folder = is_segment(&commit).then(|| self.snapshot_of(&commit))?;
        is_whole(&folder).then_some(folder)
    }

    /// The folder of a commit, whether it is there or not.
    pub(super) fn snapshot_of(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Where the bytes with this tag lie.
    pub(super) fn blob(&self, tag: &str) -> PathBuf {
        self.folder.join("blobs").join(tag)
    }

    /// Waits until nobody else downloads the blob; the lock lasts as long as the file that is returned.
    pub(super) fn lock(&self, tag: &str) -> Result<File> {
        let path = self.locks.join(format!("{tag}.lock"));
        create_parent(&path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(WeightsError::io(&path, "open it"))?;
        if file.try_lock().is_err() {
            tracing::info!(lock = %path.display(), "somebody else is downloading this file; waiting");
            match file.lock() {
                // Some network file systems know no locks; a download alone is still right.
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
                locked => locked.map_err(WeightsError::io(&path, "lock it"))?,
            }
        }
        Ok(file)
    }

    /// Notes what the revision means.
    pub(super) fn remember(&self, commit: &str) -> Result<()> {
        let path = self.reference();
        let known = std::fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit);
        if known || self.revision == commit {
            return Ok(());
        }
        create_parent(&path)?;
        std::fs::write(&path, commit).map_err(WeightsError::io(&path, "write it"))
    }

    /// Makes `file` of the snapshot show the blob. The blob's lock must be held.
    pub(super) fn link(&self, commit: &str, file: &str, tag: &str) -> Result<()> {
        let path = self.snapshot_of(commit).join(file);
        create_parent(&path)?;
        let made = link(&self.blob(tag), &Path::new("../../blobs").join(tag), &path);
        match made {
            // A broken link is in the way: its blob was deleted.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&path).map_err(WeightsError::io(&path, "replace it"))?;
                link(&self.blob(tag), &Path::new("../../blobs").join(tag), &path)
            }
            other => other,
        }
        .map_err(WeightsError::io(&path, "link it to its blob"))
    }

    fn reference(&self) -> PathBuf {
        self.folder.join("refs").join(&self.revision)
    }
}

/// Creates the folder that `path` lies in.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent).map_err(WeightsError::io(parent, "create it")),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn link(_blob: &Path, relative: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

/// Symbolic links need a privilege on Windows; a hard link does not, and needs no second copy either.
#[cfg(not(unix))]
fn link(blob: &Path, _relative: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, path)
}

fn is_whole(folder: &Path) -> bool {
    // A broken link does not exist: `is_file` follows it.
    let has = |file: &str| folder.join(file).is_file();
    let index = folder.join(INDEX);
    let shards = match std::fs::read(&index) {
        Ok(text) => match Index::parse(&index.display().to_string(), &text) {
            Ok(index) => index.shards(),
            Err(_) => return false,
        },
        Err(_) => vec![SINGLE.into()],
    };
    has("config.json") && shards.iter().all(|shard| has(shard))
}
