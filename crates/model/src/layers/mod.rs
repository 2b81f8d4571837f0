//! The parts that every architecture is built from.

pub(crate) mod attention;
pub(crate) mod decoder;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod moe;
pub(crate) mod norm;
