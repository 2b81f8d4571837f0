//! A module as SPIR-V.

use naga::Module;
use naga::back::spv::{Options, PipelineOptions, WriterFlags, ZeroInitializeWorkgroupMemoryMode, write_vec};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;

/// Nothing is checked in the shader: the host has checked the launch.
pub(crate) const UNCHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Unchecked,
    buffer: BoundsCheckPolicy::Unchecked,
    image_load: BoundsCheckPolicy::Unchecked,
    binding_array: BoundsCheckPolicy::Unchecked,
};

pub(crate) fn write(module: &Module, info: &ModuleInfo) -> Result<Vec<u32>, String> {
    let options = Options {
        lang_version: (1, 6),
        flags: WriterFlags::empty(),
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        // A capability of 16-bit values between the stages of a picture, which kernels have not and few GPUs know.
        use_storage_input_output_16: false,
        ..Options::default()
    };
    let pipeline = PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into() };
    write_vec(module, info, &options, Some(&pipeline)).map_err(|error| error.to_string())
}
