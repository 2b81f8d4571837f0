//! Pipelines from MSL.
//!
//! Arithmetic is *safe*: the compiler keeps NaN, infinities and the order of sums, and takes the precise forms of `exp`,
//! `sin` and the like. So a kernel gives what its source says, its twin on the CPU is a reference, and positions of many
//! thousands can be turned into angles. Kernels that stream weights are bound by memory and lose nothing.
#![allow(unsafe_code)]

use std::sync::Arc;

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::NSObjectProtocol;
use objc2::sel;
use objc2_metal::{
    MTLCompileOptions, MTLComputePipelineDescriptor, MTLComputePipelineState, MTLDevice, MTLLanguageVersion,
    MTLLibrary, MTLMathFloatingPointFunctions, MTLMathMode, MTLPipelineOption, MTLSize,
};

use super::core::Core;
use super::native::{RawPipeline, reason, text};
use crate::monitor::lock;
use crate::{Code, DeviceError, Pipeline, PipelineDesc, Requires, Result, Shader};

/// Buffers that a function of MSL takes at most.
const MAX_BUFFERS: u32 = 31;

/// Copies bytes of any alignment, 16 a thread: blits of buffers take multiples of four bytes only on some GPUs.
pub(crate) static COPY_BYTES: Shader = Shader {
    name: "copy_bytes",
    spirv: &[],
    msl: include_str!("copy_bytes.metal"),
    msl_entry: "copy_bytes",
    workgroup: [256, 1, 1],
    bindings: 2,
    written: 0b10,
    params: 8,
    threadgroup: &[],
    requires: Requires { cooperative_matrix: false, subgroup_size: None },
};

/// What a pipeline is behind its handle.
pub(crate) struct MetalPipeline {
    pub(crate) device: u64,
    pub(crate) shader: &'static Shader,
    pub(crate) raw: RawPipeline,
    pub(crate) threads: MTLSize,
    /// The function takes the sizes of its buffers, in the buffer after the parameters.
    pub(crate) takes_sizes: bool,
}

// SAFETY: pipeline states of Metal never change and may be used by any thread.
unsafe impl Send for MetalPipeline {}
// SAFETY: as above.
unsafe impl Sync for MetalPipeline {}

/// The pipeline of a description, made once for each shader.
pub(crate) fn create(core: &Core, desc: &PipelineDesc) -> Result<Pipeline> {
    let Code::Gpu(shader) = desc.code else {
        return Err(DeviceError::Pipeline {
            label: desc.label.into(),
            reason: "this device runs shaders, given a function: take the GPU form of the kernel".into(),
        });
    };
    core.ledger.alive()?;
    let made = lock(&core.pipelines).get(shader.name).cloned();
    let native = match made.filter(|made| std::ptr::eq(made.shader, shader)) {
        Some(made) => made,
        None => {
            let built = build(core, shader)?;
            lock(&core.pipelines).insert(shader.name, built.clone());
            built
        }
    };
    Ok(Pipeline { label: desc.label, native })
}

pub(crate) fn build(core: &Core, shader: &'static Shader) -> Result<Arc<MetalPipeline>> {
    let refused = |reason: String| DeviceError::Pipeline { label: shader.name.into(), reason };
    legal(core, shader).map_err(refused)?;
    let [x, y, z] = shader.workgroup.map(|n| n as usize);
    let raw = autoreleasepool(|_| compile(core, shader)).map_err(refused)?;
    let (most, width) = (raw.maxTotalThreadsPerThreadgroup(), raw.threadExecutionWidth());
    if x * y * z > most {
        return Err(refused(format!(
            "its registers leave room for {most} threads a workgroup; it is written for {}",
            x * y * z
        )));
    }
    if let Some(size) = shader.requires.subgroup_size.filter(|&size| size as usize != width) {
        return Err(refused(format!("it needs subgroups of {size} threads; this GPU has {width}")));
    }
    let memory = threadgroup_memory(shader) + raw.staticThreadgroupMemoryLength();
    if memory > core.device.maxThreadgroupMemoryLength() {
        let most = core.device.maxThreadgroupMemoryLength();
        return Err(refused(format!("{memory} bytes of workgroup memory; this GPU has {most}")));
    }
    Ok(Arc::new(MetalPipeline {
        device: core.id,
        shader,
        raw,
        threads: MTLSize { width: x, height: y, depth: z },
        takes_sizes: shader.msl.contains("_mslBufferSizes"),
    }))
}

fn threadgroup_memory(shader: &Shader) -> usize {
    shader.threadgroup.iter().map(|&bytes| bytes as usize).sum()
}

fn legal(core: &Core, shader: &Shader) -> Result<(), String> {
    if shader.msl.is_empty() {
        return Err("it has no form for Metal".into());
    }
    // Parameters and sizes come after the bindings.
    if shader.bindings + 2 > MAX_BUFFERS {
        return Err(format!("{} bindings; Metal takes {}", shader.bindings, MAX_BUFFERS - 2));
    }
    if shader.threadgroup.len() > MAX_BUFFERS as usize {
        return Err(format!("{} workgroup variables; Metal takes {MAX_BUFFERS}", shader.threadgroup.len()));
    }
    if shader.requires.cooperative_matrix && !core.facts.simdgroup_matrix() {
        return Err("it needs simdgroup matrices, which this GPU has not".into());
    }
    Ok(())
}

fn compile(core: &Core, shader: &Shader) -> Result<RawPipeline, String> {
    let options = MTLCompileOptions::new();
    options.setLanguageVersion(MTLLanguageVersion::Version3_1);
    if options.respondsToSelector(sel!(setMathMode:)) {
        options.setMathMode(MTLMathMode::Safe);
        options.setMathFloatingPointFunctions(MTLMathFloatingPointFunctions::Precise);
    } else {
        // Before macOS 15, one switch for both.
        #[allow(deprecated)]
        options.setFastMathEnabled(false);
    }
    let library = core.device.newLibraryWithSource_options_error(&text(shader.msl), Some(&options));
    let library = library.map_err(|error| reason(&error))?;
    library.setLabel(Some(&text(shader.name)));
    let function = library
        .newFunctionWithName(&text(shader.msl_entry))
        .ok_or_else(|| format!("its source has no function '{}'", shader.msl_entry))?;
    let threads: u32 = shader.workgroup.iter().product();
    let descriptor = MTLComputePipelineDescriptor::new();
    descriptor.setLabel(Some(&text(shader.name)));
    descriptor.setComputeFunction(Some(&function));
    descriptor.setMaxTotalThreadsPerThreadgroup(threads as usize);
    match &core.archive {
        Some(archive) => archive.pipeline(&core.device, &descriptor),
        None => state(core, &descriptor),
    }
}

fn state(core: &Core, descriptor: &Retained<MTLComputePipelineDescriptor>) -> Result<RawPipeline, String> {
    let made = core.device.newComputePipelineStateWithDescriptor_options_reflection_error(
        descriptor,
        MTLPipelineOption::None,
        None,
    );
    made.map_err(|error| reason(&error))
}
