//! Compiled pipelines on disk, so that the next start compiles nothing.
//!
//! The driver checks that a file is its own: of this GPU and this version. A file that is not is no error.
#![allow(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ash::vk;

use crate::monitor::lock;

pub(crate) struct PipelineCache {
    pub(crate) raw: vk::PipelineCache,
    path: Option<PathBuf>,
    changed: AtomicBool,
    saving: Mutex<()>,
}

impl PipelineCache {
    pub(crate) fn open(
        device: &ash::Device,
        properties: &vk::PhysicalDeviceProperties,
        path: Option<PathBuf>,
    ) -> Result<Self, vk::Result> {
        let data = path.as_deref().and_then(|path| load(path, properties)).unwrap_or_default();
        let info = vk::PipelineCacheCreateInfo::default().initial_data(&data);
        // SAFETY: the data lives over the call, and its header fits the device.
        let raw = unsafe { device.create_pipeline_cache(&info, None) };
        let raw = raw.or_else(|error| {
            tracing::warn!("the pipeline cache is not used: {error}");
            // SAFETY: as above, without data.
            unsafe { device.create_pipeline_cache(&vk::PipelineCacheCreateInfo::default(), None) }
        })?;
        Ok(Self { raw, path, changed: AtomicBool::new(false), saving: Mutex::new(()) })
    }

    /// A pipeline was made.
    pub(crate) fn touch(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Writes the file, if there is one and a pipeline was made since it was last written. Failure is only noted.
    pub(crate) fn save(&self, device: &ash::Device) {
        let Some(path) = &self.path else { return };
        if !self.changed.load(Ordering::Acquire) {
            return;
        }
        let _one = lock(&self.saving);
        if !self.changed.swap(false, Ordering::AcqRel) {
            return;
        }
        // SAFETY: the cache lives; pipelines may be made meanwhile.
        let data = unsafe { device.get_pipeline_cache_data(self.raw) };
        let written = data
            .map_err(|error| std::io::Error::other(error.to_string()))
            .and_then(|data| replace(path, &data));
        match written {
            Ok(()) => tracing::debug!("wrote the pipeline cache {}", path.display()),
            Err(error) => tracing::warn!("the pipeline cache {} is not written: {error}", path.display()),
        }
    }
}

/// The content of a file that a driver of this device wrote.
fn load(path: &Path, properties: &vk::PhysicalDeviceProperties) -> Option<Vec<u8>> {
    let data = match std::fs::read(path) {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("the pipeline cache {} is not read: {error}", path.display());
            return None;
        }
    };
    if fits(&data, properties) {
        return Some(data);
    }
    tracing::info!(
        "the pipeline cache {} is of another device or driver, or damaged; it is made anew",
        path.display()
    );
    None
}

/// Whether the header, version one of the specification, is the device's. Drivers check it as well, but a damaged file is
/// nothing to try them with.
fn fits(data: &[u8], properties: &vk::PhysicalDeviceProperties) -> bool {
    let word = |at: usize| data.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    word(0).is_some_and(|length| length >= 32 && length as usize <= data.len())
        && word(4) == u32::try_from(vk::PipelineCacheHeaderVersion::ONE.as_raw()).ok()
        && word(8) == Some(properties.vendor_id)
        && word(12) == Some(properties.device_id)
        && data.get(16..32) == Some(&properties.pipeline_cache_uuid[..])
}

/// Writes a file in one step: readers see the old one or the new one.
fn replace(path: &Path, data: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let mut file = std::fs::File::create(&fresh)?;
    let written =
        file.write_all(data).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() && std::fs::remove_file(&fresh).is_err() {
        tracing::debug!("{} is left behind", fresh.display());
    }
    written
}
