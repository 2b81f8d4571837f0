//! Compiled pipelines on disk: a binary archive.
//!
//! An archive that cannot be read is left out with a note, and written anew. Of what the compiler does, an archive keeps
//! the second half, from the intermediate form to the GPU's instructions; the system itself caches the first.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSArray, NSURL};
use objc2_metal::{
    MTLBinaryArchive, MTLBinaryArchiveDescriptor, MTLComputePipelineDescriptor, MTLDevice, MTLPipelineOption,
};

use super::native::{RawDevice, RawPipeline, reason, text};
use crate::monitor::lock;

type RawArchive = Retained<ProtocolObject<dyn MTLBinaryArchive>>;

/// How long after the last new pipeline the file is written: they are made in bursts.
const QUIET: Duration = Duration::from_secs(2);

pub(crate) struct Archive {
    path: PathBuf,
    kept: Mutex<Kept>,
}

struct Kept {
    /// `None` when the system makes none: pipelines are compiled without.
    raw: Option<RawArchive>,
    /// When a pipeline was added that the file does not have.
    added: Option<Instant>,
}

// SAFETY: the archive is used under the mutex only, by whichever thread; nothing in Metal binds it to one.
unsafe impl Send for Kept {}

impl Archive {
    pub(crate) fn open(device: &RawDevice, path: &Path) -> Self {
        let raw = autoreleasepool(|_| {
            let descriptor = MTLBinaryArchiveDescriptor::new();
            if path.exists() {
                descriptor.setUrl(NSURL::from_file_path(path).as_deref());
                match device.newBinaryArchiveWithDescriptor_error(&descriptor) {
                    Ok(raw) => return Some(raw),
                    Err(error) => tracing::warn!(
                        "pipeline cache {} is ignored and written anew: {}",
                        path.display(),
                        reason(&error)
                    ),
                }
                descriptor.setUrl(None);
            }
            let made = device.newBinaryArchiveWithDescriptor_error(&descriptor);
            made.inspect_err(|error| tracing::warn!("no pipeline cache: {}", reason(error))).ok()
        });
        if let Some(raw) = &raw {
            raw.setLabel(Some(&text("bessemer")));
        }
        Self { path: path.to_owned(), kept: Mutex::new(Kept { raw, added: None }) }
    }

    /// A pipeline from the archive, or compiled and added to it.
    pub(crate) fn pipeline(
        &self,
        device: &RawDevice,
        descriptor: &MTLComputePipelineDescriptor,
    ) -> Result<RawPipeline, String> {
        let make = |options| {
            device.newComputePipelineStateWithDescriptor_options_reflection_error(descriptor, options, None)
        };
        let mut kept = lock(&self.kept);
        let Some(raw) = kept.raw.clone() else {
            drop(kept);
            return make(MTLPipelineOption::None).map_err(|error| reason(&error));
        };
        descriptor.setBinaryArchives(Some(&NSArray::from_slice(&[&*raw])));
        if let Ok(found) = make(MTLPipelineOption::FailOnBinaryArchiveMiss) {
            return Ok(found);
        }
        let made = make(MTLPipelineOption::None).map_err(|error| reason(&error))?;
        match raw.addComputePipelineFunctionsWithDescriptor_error(descriptor) {
            Ok(()) => kept.added = Some(Instant::now()),
            Err(error) => tracing::debug!("a pipeline is not cached: {}", reason(&error)),
        }
        Ok(made)
    }

    /// Writes the file from another thread once no pipeline has been made for a moment.
    pub(crate) fn save_when_quiet(self: &Arc<Self>) {
        let quiet = self.kept.try_lock().is_ok_and(|kept| kept.added.is_some_and(|at| at.elapsed() > QUIET));
        if !quiet {
            return;
        }
        let archive = self.clone();
        let spawned = std::thread::Builder::new().name("pipeline-cache".into()).spawn(move || archive.save());
        if let Err(error) = spawned {
            tracing::debug!("the pipeline cache is written later: {error}");
        }
    }

    /// Writes the file when it lacks a pipeline.
    pub(crate) fn save(&self) {
        let mut kept = lock(&self.kept);
        let Some(raw) = kept.raw.as_ref().filter(|_| kept.added.is_some()) else { return };
        if let Err(error) = self.write(raw) {
            tracing::warn!("pipeline cache {} cannot be written: {error}", self.path.display());
        }
        kept.added = None;
    }

    /// Beside the file first, so that a crash leaves the old one.
    fn write(&self, raw: &RawArchive) -> Result<(), String> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        autoreleasepool(|_| {
            let url = NSURL::from_file_path(&beside).ok_or("its path is not absolute text")?;
            raw.serializeToURL_error(&url).map_err(|error| reason(&error))
        })?;
        std::fs::rename(&beside, &self.path).map_err(|error| error.to_string())
    }
}
