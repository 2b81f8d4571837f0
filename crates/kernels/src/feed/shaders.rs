//! GPU kernels of this operation, in every variant.

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    vec![Source::new("feed", "", &["feed/feed.wgsl"])]
}
