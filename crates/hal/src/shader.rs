//! Kernels in the form that a device runs: a Rust function, or a shader that was compiled when this program was built.

use crate::cpu::CpuKernel;

/// A kernel in the form that one kind of device runs.
#[derive(Clone, Copy, Debug)]
pub enum Code {
    /// A function over a workgroup, for the CPU device and the no-op device.
    Cpu(CpuKernel),
    /// A compute shader, for Metal and Vulkan.
    Gpu(&'static Shader),
}

/// A compute shader in both languages, and what its launch needs. One WGSL source gives both.
///
/// Bindings are storage buffers: binding `i` of a dispatch is descriptor `i` of set 0 in SPIR-V and `[[buffer(i)]]` in
/// MSL. Parameters are a push constant block in SPIR-V, and in MSL the buffer after the last binding.
#[derive(Debug)]
pub struct Shader {
    /// Unique name.
    pub name: &'static str,
    /// A SPIR-V module, little endian, whose entry point is `main`. Empty in a program built for Apple's systems.
    pub spirv: &'static [u8],
    /// Metal's shading language. Empty in a program built for other systems.
    pub msl: &'static str,
    /// The entry point in `msl`.
    pub msl_entry: &'static str,
    /// Threads of a workgroup along x, y and z.
    pub workgroup: [u32; 3],
    /// Storage buffers.
    pub bindings: u32,
    /// Bit `i` is set when the shader writes binding `i`.
    pub written: u32,
    /// Bytes of parameters; at most 128.
    pub params: u32,
    /// Bytes of each threadgroup variable, in the order of Metal's threadgroup indices.
    pub threadgroup: &'static [u32],
    /// What a device must have to run it.
    pub requires: Requires,
}

/// What a shader needs beyond what every GPU device of this crate has: 16-bit floats in storage and arithmetic,
/// subgroup arithmetic, and 8-bit dot products (made of other instructions where the hardware has none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requires {
    /// Cooperative matrices (simdgroup matrices on Metal): `f16` factors, `f32` sums.
    pub cooperative_matrix: bool,
    /// The shader is written for subgroups of exactly this size, all of them full.
    pub subgroup_size: Option<u32>,
}
