//! The variants that are compiled: how many rows a workgroup takes, by the form of activations and weights.

/// What a kernel multiplies with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Plain weights, f32 rows.
    Plain,
    /// Codes, int8 rows.
    Int8,
    /// Codes, int8 rows of two terms.
    Int8x2,
    /// Codes, f32 rows.
    Exact,
}

impl Form {
    /// Rows of a workgroup, ascending; the last are as many as fit the registers. Scales of 32 bits are rare: they have
    /// one variant.
    pub(crate) fn rows(self, wide_scales: bool) -> &'static [usize] {
        match (self, wide_scales) {
            (Self::Plain, _) | (Self::Int8, false) => &[1, 2, 4, 8],
            (Self::Int8x2, false) => &[1, 2, 4],
            (Self::Exact, false) => &[1, 4],
            (Self::Int8 | Self::Exact, true) => &[4],
            (Self::Int8x2, true) => &[2],
        }
    }

    /// Threads of a workgroup that normalises the row of a product, best first; fewer are for devices with less room. As f32 a
    /// row is multiplied by so many instructions that fewer panels a workgroup are quicker.
    pub(crate) fn normed_threads(self) -> &'static [usize] {
        match self {
            Self::Plain => &[],
            Self::Int8 | Self::Int8x2 => &[1024, 256],
            Self::Exact => &[256],
        }
    }

    /// Part of the kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Int8 => "int8",
            Self::Int8x2 => "int8x2",
            Self::Exact => "exact",
        }
    }
}

/// Columns that the choices of a row have together at most, where their results are added up.
pub(crate) const CAPACITY: usize = 8192;
/// Threads of a workgroup that adds up the results of experts.
pub(crate) const COMBINED_THREADS: [usize; 2] = [512, 256];
/// Columns at most of a row that is normalised where it is multiplied.
pub(crate) const NORMED_COLUMNS: usize = 4096;
/// Experts at most that are chosen where they are multiplied.
pub(crate) const CHOSEN: usize = 256;
