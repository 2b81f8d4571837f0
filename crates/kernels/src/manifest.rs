//! The list of GPU kernels, as the build script and the tests read it.

use std::io;
use std::path::Path;

use bessemer_wgsl::Languages;

#[path = "attention/shaders.rs"]
mod attention;
#[path = "ceiling/shaders.rs"]
mod ceiling;
#[path = "feed/shaders.rs"]
mod feed;
#[path = "gather/shaders.rs"]
mod gather;
#[path = "linear/gpu/few/shaders.rs"]
mod linear_few;
#[path = "linear/gpu/rowwise/shaders.rs"]
mod linear_rowwise;
#[path = "linear/gpu/tile/shaders.rs"]
mod linear_tile;
#[path = "rms_norm/shaders.rs"]
mod rms_norm;
#[path = "rope/shaders.rs"]
mod rope;
#[path = "router/shaders.rs"]
mod router;
#[path = "sampling/shaders.rs"]
mod sampling;

/// One kernel: its text is a prelude followed by the parts, in order.
pub(crate) struct Source {
    /// Unique; letters, digits and underscores.
    pub(crate) name: String,
    /// Where it can run.
    pub(crate) languages: Languages,
    /// `enable` lines, constants and aliases that make it this variant.
    pub(crate) prelude: String,
    /// Files under `src`.
    pub(crate) parts: Vec<&'static str>,
    /// It is written for subgroups of this size.
    pub(crate) subgroup_size: Option<u32>,
}

impl Source {
    /// A kernel for all devices.
    pub(crate) fn new(name: impl Into<String>, prelude: impl Into<String>, parts: &[&'static str]) -> Self {
        Self {
            name: name.into(),
            languages: Languages::All,
            prelude: prelude.into(),
            parts: parts.to_vec(),
            subgroup_size: None,
        }
    }

    /// The whole text.
    pub(crate) fn text(&self, src: &Path) -> io::Result<String> {
        let mut text = self.prelude.clone();
        for part in &self.parts {
            text.push('\n');
            text.push_str(
                &std::fs::read_to_string(src.join(part))
                    .map_err(|error| io::Error::new(error.kind(), format!("{part}: {error}")))?,
            );
        }
        Ok(text)
    }
}

/// Every kernel, by name.
pub(crate) fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for list in [
        attention::sources,
        ceiling::sources,
        feed::sources,
        gather::sources,
        linear_few::sources,
        linear_rowwise::sources,
        linear_tile::sources,
        rms_norm::sources,
        rope::sources,
        router::sources,
        sampling::sources,
    ] {
        sources.extend(list());
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}
