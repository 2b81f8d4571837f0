//! How precise activations are where they meet quantised weights.

/// How precise the activations that enter quantised weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    Int8(Terms),
}

/// Rows of int8 codes that make a row of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    One,
    Two,
}
