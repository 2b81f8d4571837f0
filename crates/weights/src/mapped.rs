//! A checkpoint file mapped into memory: the only `unsafe` of this crate.
//!
//! Mapping instead of reading, because a checkpoint may be larger than memory and most of its bytes are touched once,
//! when a device repacks them.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::{Result, WeightsError};

/// A file's bytes, read-only.
#[derive(Debug)]
pub(crate) struct MappedFile {
    /// `None` for an empty file, which some systems refuse to map.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the whole file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(WeightsError::io(path, "open it"))?;
        let metadata = file.metadata().map_err(WeightsError::io(path, "read its size"))?;
        if metadata.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(WeightsError::io(path, "read it as a file")(source));
        }
        if metadata.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is private and read-only, and it is only ever seen as `&[u8]`, for which every bit
        // pattern is valid. A process that truncates the file while it is mapped can still raise SIGBUS; model files
        // are replaced by renaming, not rewritten in place, and no loader that maps can exclude it.
        let map = unsafe { Mmap::map(&file) }.map_err(WeightsError::io(path, "map it into memory"))?;
        Ok(Self { map: Some(map) })
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Lets the system drop the pages of `range`; a failure only means that they stay.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map
            && range.end <= map.len()
            && !range.is_empty()
        {
            // SAFETY: the mapping is file-backed and never written, so dropped pages come back from the file with the
            // same bytes; references into the range stay valid.
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
            if let Err(error) = advised {
                tracing::debug!(%error, "pages of a mapped checkpoint were not released");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}
