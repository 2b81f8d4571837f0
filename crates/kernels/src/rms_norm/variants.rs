//! What the variants of the GPU's kernel differ in, as the build script and the launch read it.

/// Vectors of four columns that a thread of the GPU's kernel, one of 256, can hold of its row. Ascending.
pub(crate) const HELD: [usize; 3] = [2, 5, 8];

/// Where the rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// They are there.
    Given,
    /// The results of experts are added to them first.
    Combined,
}

/// What the rows become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// f32.
    F32,
    /// int8.
    Int8,
    /// int8 in two terms.
    Int8x2,
    /// f32, and int8 beside it.
    Both,
}

/// The kernel's name.
pub(crate) fn name(from: From, to: To, held: usize) -> String {
    let from = match from {
        From::Given => "rms_norm",
        From::Combined => "combine_rms_norm",
    };
    let to = match to {
        To::F32 => "f32",
        To::Int8 => "int8",
        To::Int8x2 => "int8x2",
        To::Both => "both",
    };
    format!("{from}_{to}_{held}")
}
