//! The GPU forms of the operations on matrices.

mod few;
pub(super) mod product;
pub(super) mod rowwise;
mod select;
mod tile;
