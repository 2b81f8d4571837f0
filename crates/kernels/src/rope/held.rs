//! What the variants of the GPU's kernel differ in, as the build script and the launch read it.

/// Columns that a thread of the GPU's kernel, one of 64, can hold of its head. Ascending.
pub(crate) const HELD: [usize; 3] = [2, 4, 16];
