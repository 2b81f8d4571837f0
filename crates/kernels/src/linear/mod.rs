//! Matrix products: packed weights times activations, on the CPU.
//!
//! - Weights are *repacked once*, at load, to panels of sixteen outputs ([`LinearLayout`], [`pack`]); one layout serves
//!   every instruction set, from AVX-512 to plain Rust.
//! - A panel of quantised weights is *one stream*: for each group its codes, then sixteen scales, then sixteen biases.
//!   Codes lie as a dot-product instruction takes them, sixteen outputs of four inputs, and in bit planes, so that
//!   unpacking is shifts and masks: in a 4-bit block of `n` such chunks, byte `j` of vector `v` holds chunk `v` in the
//!   low nibble and chunk `v + n / 2` in the high one. 3, 5 and 6 bits are two planes: 2 + 1, 4 + 1, 4 + 2.
//! - mxfp4 is *affine in disguise*: its sixteen values become bytes `2 · value + 12` by a table, the scale stays a byte.
//! - Activations are *f32* (exact) or *int8* by blocks ([`quantise_row`]).
//! - *Batch invariance*: an output's bits depend on its own row alone, not on other rows, on tiles or on the kernel that
//!   ran. Each sum has one order and one formula, written down in `int8` and `float`; they also hold across
//!   instruction sets. Greedy decoding therefore gives the same tokens in any batch.
//!
//! Rejected: the file's own order of weights (each instruction set would gather bytes in its inner loop), and sums
//! across lanes (their order would differ with the register width).

mod codes;
mod combined_experts;
mod float;
mod gated;
mod gated_experts;
mod gpu;
mod int8;
mod int8_tiles;
mod layout;
mod multiply;
mod normed_linear;
mod ops;
mod pack;
mod params;
mod quantise;
mod select;
mod simd;
mod unpack;

#[cfg(test)]
mod ops_tests;
#[cfg(test)]
mod tests;

pub use combined_experts::CombinedExperts;
pub use gated::{GateActivation, Gated};
pub use gated_experts::{GatedExperts, SlotExperts};
pub(crate) use int8_tiles::{Int8Params, Int8Tiles};
pub use layout::{Encoding, LANES, LinearError, LinearLayout, LinearShape, ScaleType};
pub use multiply::{Epilogue, Input, Matrix, Routing, SlotInput, Write, multiply, multiply_experts};
pub use normed_linear::{NormedForm, NormedLinear};
pub(crate) use ops::check_int8;
pub use ops::{Embedding, Experts, Linear, Quantise, SlotOrder, Weights};
pub use pack::{Source, pack};
pub use quantise::{Int8RowMut, Int8Rows, quantise_row};
pub use select::tile_columns;
pub use unpack::unpack_row;
