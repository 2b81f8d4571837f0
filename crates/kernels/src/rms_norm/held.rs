//! What the variants of the GPU's kernel differ in, as the build script and the launch read it.

/// Vectors of four columns that a thread of the GPU's kernel, one of 256, can hold of its row. Ascending.
pub(crate) const HELD: [usize; 3] = [2, 5, 8];
