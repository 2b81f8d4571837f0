//! Compute kernels from WGSL to SPIR-V and to Metal's shading language (MSL), by naga.
//!
//! It runs when the program is *built*: a kernel that does not compile, does not validate or leaves the rules below does
//! not build. Nothing of it is in the program.
//!
//! Rules of a kernel:
//!
//! - One entry point, `main`. Storage buffers in group 0, binding 0 and up without a gap. Parameters, at most 128 bytes,
//!   in one `var<immediate>`.
//! - No bounds checks, no loop bounds and no checks of divisors are added, *because* every launch is checked on the host.
//! - Workgroup memory is not cleared.

mod compile;
mod msl;
mod spirv;

pub use compile::{Compiled, Error, Languages, compile};
