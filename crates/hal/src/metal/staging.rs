//! Reads and writes of memory that the host does not see: through one buffer that both see, and a queue of their own.
#![allow(unsafe_code)]

use std::sync::Mutex;

use objc2_metal::{MTLBuffer, MTLDevice, MTLResource, MTLResourceOptions};

use super::core::{COPIES, Core};
use super::encode::copy_and_wait;
use super::native::{RawBuffer, text};
use crate::Result;
use crate::monitor::lock;

/// Bytes that are moved at a time.
const CHUNK: usize = 16 << 20;

/// The buffer in between, made at the first use.
#[derive(Default)]
pub(crate) struct Staging {
    stage: Mutex<Option<Stage>>,
}

struct Stage(RawBuffer);

// SAFETY: the buffer is used under the mutex only; buffers of Metal may be used and released by any thread.
unsafe impl Send for Stage {}

impl Staging {
    /// Copies `data` to `offset` of a private buffer that nobody else uses meanwhile.
    pub(crate) fn write(&self, core: &Core, to: &RawBuffer, offset: u64, data: &[u8]) -> Result<()> {
        self.with(core, |stage| {
            for (index, chunk) in data.chunks(CHUNK).enumerate() {
                let at = offset + (index * CHUNK) as u64;
                // SAFETY: the stage has room for a chunk, and no copy of it is under way.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        chunk.as_ptr(),
                        stage.contents().cast::<u8>().as_ptr(),
                        chunk.len(),
                    )
                };
                copy_and_wait(core, &core.queues[COPIES], (stage, 0), (to, at), chunk.len() as u64)?;
            }
            Ok(())
        })
    }

    /// Copies from `offset` of a private buffer that nobody writes meanwhile.
    pub(crate) fn read(&self, core: &Core, from: &RawBuffer, offset: u64, data: &mut [u8]) -> Result<()> {
        self.with(core, |stage| {
            for (index, chunk) in data.chunks_mut(CHUNK).enumerate() {
                let at = offset + (index * CHUNK) as u64;
                copy_and_wait(core, &core.queues[COPIES], (from, at), (stage, 0), chunk.len() as u64)?;
                // SAFETY: as in `write`.
                unsafe {
                    let stage = stage.contents().cast::<u8>().as_ptr();
                    std::ptr::copy_nonoverlapping(stage, chunk.as_mut_ptr(), chunk.len());
                }
            }
            Ok(())
        })
    }

    fn with(&self, core: &Core, transfer: impl FnOnce(&RawBuffer) -> Result<()>) -> Result<()> {
        let mut stage = lock(&self.stage);
        if stage.is_none() {
            let options =
                MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
            let raw = core.device.newBufferWithLength_options(CHUNK, options);
            let raw = raw.ok_or_else(|| core.meter.out_of_memory("the staging buffer", CHUNK as u64))?;
            raw.setLabel(Some(&text("staging")));
            *stage = Some(Stage(raw));
        }
        match &*stage {
            Some(Stage(raw)) => transfer(raw),
            None => Ok(()),
        }
    }
}
