//! A capture of the first submissions, for Xcode's Metal debugger.
//!
//! The system captures only for a process that was started with `METAL_CAPTURE_ENABLED=1`.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use objc2::rc::autoreleasepool;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSURL;
use objc2_metal::{MTLCaptureDescriptor, MTLCaptureDestination, MTLCaptureManager, MTLDevice};

use super::device::MetalOptions;
use super::native::reason;
use crate::monitor::lock;

/// The environment's way to [`MetalOptions::capture`].
pub(crate) const VARIABLE: &str = "BESSEMER_METAL_CAPTURE";

pub(crate) struct Capture {
    path: PathBuf,
    stage: Mutex<Stage>,
}

enum Stage {
    /// So many submissions are to be captured.
    Before(u32),
    /// So many are left.
    Running(u32),
    Done,
}

impl Capture {
    /// `None` when nothing is to be captured.
    pub(crate) fn new(options: &MetalOptions) -> Option<Self> {
        let wanted = options.capture.clone().or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let path = wanted.filter(|path| !path.as_os_str().is_empty())?;
        Some(Self { path, stage: Mutex::new(Stage::Before(options.capture_submissions.max(1))) })
    }

    /// A submission is about to be encoded.
    pub(crate) fn before(&self, device: &ProtocolObject<dyn MTLDevice>) {
        let mut stage = lock(&self.stage);
        let Stage::Before(count) = *stage else { return };
        *stage = match self.start(device) {
            Ok(()) => Stage::Running(count),
            Err(reason) => {
                tracing::warn!("no capture to {}: {reason}", self.path.display());
                Stage::Done
            }
        };
    }

    fn start(&self, device: &ProtocolObject<dyn MTLDevice>) -> Result<(), String> {
        autoreleasepool(|_| {
            // SAFETY: the manager is the process's one, and may be used by any thread.
            let manager = unsafe { MTLCaptureManager::sharedCaptureManager() };
            if !manager.supportsDestination(MTLCaptureDestination::GPUTraceDocument) {
                return Err("start the program with METAL_CAPTURE_ENABLED=1".to_owned());
            }
            let path = std::path::absolute(&self.path).map_err(|error| error.to_string())?;
            let url = NSURL::from_file_path(path).ok_or("its path is no text")?;
            let descriptor = MTLCaptureDescriptor::new();
            // SAFETY: a device is one of the objects that can be captured.
            unsafe { descriptor.setCaptureObject(Some(device.as_ref())) };
            descriptor.setDestination(MTLCaptureDestination::GPUTraceDocument);
            descriptor.setOutputURL(Some(&url));
            manager.startCaptureWithDescriptor_error(&descriptor).map_err(|error| reason(&error))
        })
    }

    /// A submission has ended.
    pub(crate) fn after(&self) {
        let mut stage = lock(&self.stage);
        let Stage::Running(left) = &mut *stage else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        *stage = Stage::Done;
        // From a thread of its own: this one belongs to Metal, and the end of a capture may wait for it.
        let path = self.path.clone();
        let spawned = std::thread::Builder::new().name("capture".into()).spawn(move || stop(&path));
        if let Err(error) = spawned {
            tracing::warn!("the capture goes on: {error}");
        }
    }
}

fn stop(path: &Path) {
    // SAFETY: as in `Capture::start`.
    autoreleasepool(|_| unsafe { MTLCaptureManager::sharedCaptureManager() }.stopCapture());
    tracing::info!("capture written to {}", path.display());
}

impl Drop for Capture {
    fn drop(&mut self) {
        if matches!(*lock(&self.stage), Stage::Running(_)) {
            stop(&self.path);
        }
    }
}
