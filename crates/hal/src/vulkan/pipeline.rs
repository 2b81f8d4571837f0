//! Pipelines: shaders made launchable.
#![allow(unsafe_code)]

use std::sync::Arc;

use ash::vk;

use super::core::Core;
use crate::monitor::lock;
use crate::{Code, DeviceError, Pipeline, PipelineDesc, Result, Shader};

/// The layouts of every shader with as many bindings and bytes of parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) set: vk::DescriptorSetLayout,
    pub(crate) pipeline: vk::PipelineLayout,
}

/// What a pipeline is behind its handle.
pub(crate) struct VulkanPipeline {
    pub(crate) core: Arc<Core>,
    pub(crate) raw: vk::Pipeline,
    pub(crate) layout: Layout,
    pub(crate) shader: &'static Shader,
}

impl Drop for VulkanPipeline {
    fn drop(&mut self) {
        // SAFETY: command lists that use the pipeline hold it, so there are none.
        unsafe { self.core.device.destroy_pipeline(self.raw, None) };
    }
}

pub(crate) fn create(core: &Arc<Core>, desc: &PipelineDesc) -> Result<Pipeline> {
    core.alive()?;
    let refused = |reason: String| DeviceError::Pipeline { label: desc.label.into(), reason };
    let Code::Gpu(shader) = desc.code else {
        return Err(refused(
            "this device runs shaders, given a function: take the GPU form of the kernel".into(),
        ));
    };
    let words = check(core, shader).map_err(refused)?;
    let build = |result: vk::Result| match result {
        vk::Result::ERROR_DEVICE_LOST => core.lose(&format!("building pipeline '{}'", desc.label)),
        other => refused(format!("the driver says: {other}")),
    };
    let layout = layout(core, shader).map_err(build)?;
    let info = vk::ShaderModuleCreateInfo::default().code(&words);
    // SAFETY: the words are a SPIR-V module that was validated when it was made, and needs what the device has.
    let module = unsafe { core.device.create_shader_module(&info, None) }.map_err(build)?;
    let mut required = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
    let mut stage = vk::PipelineShaderStageCreateInfo::default()
        .stage(vk::ShaderStageFlags::COMPUTE)
        .module(module)
        .name(c"main");
    if let Some(size) = shader.requires.subgroup_size {
        required = required.required_subgroup_size(size);
        stage =
            stage.flags(vk::PipelineShaderStageCreateFlags::REQUIRE_FULL_SUBGROUPS).push_next(&mut required);
    }
    let infos = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout.pipeline)];
    // SAFETY: everything named lives over the call; the cache takes many threads. The module is nobody else's.
    let made = unsafe {
        let made = core.device.create_compute_pipelines(core.cache.raw, &infos, None);
        core.device.destroy_shader_module(module, None);
        made
    };
    let raw = made.map(|made| made[0]).map_err(|(_, result)| build(result))?;
    core.name(raw, desc.label);
    core.cache.touch();
    let native = VulkanPipeline { core: core.clone(), raw, layout, shader };
    Ok(Pipeline { label: desc.label, native: Arc::new(native) })
}

/// The module as words, when the device has what the shader needs.
fn check(core: &Core, shader: &Shader) -> Result<Vec<u32>, String> {
    let physical = &core.physical;
    let limits = &physical.limits;
    if shader.spirv.is_empty() {
        return Err("it has no SPIR-V form in this program".into());
    }
    if !shader.spirv.len().is_multiple_of(4) || !shader.spirv.starts_with(&0x0723_0203_u32.to_le_bytes()) {
        return Err("its SPIR-V form is damaged".into());
    }
    if shader.requires.cooperative_matrix && !physical.cooperative_matrix {
        return Err(
            "it needs cooperative matrices of 16 × 16 × 16 (f16 to f32), which the device has not".into()
        );
    }
    let [x, y, z] = shader.workgroup;
    let threads = x.saturating_mul(y).saturating_mul(z);
    let most = limits.max_compute_work_group_invocations;
    if threads > most || (0..3).any(|i| shader.workgroup[i] > limits.max_compute_work_group_size[i]) {
        return Err(format!(
            "its workgroups of {x} × {y} × {z} threads are too large; the device has {most}"
        ));
    }
    let memory: u32 = shader.threadgroup.iter().sum();
    if memory > limits.max_compute_shared_memory_size {
        return Err(format!(
            "it needs {memory} bytes of workgroup memory; the device has {}",
            limits.max_compute_shared_memory_size
        ));
    }
    let mut bindings = limits.max_per_stage_descriptor_storage_buffers;
    if core.push.is_some() {
        bindings = bindings.min(physical.max_push_descriptors);
    }
    if shader.bindings > bindings {
        return Err(format!("it has {} bindings; the device has {bindings}", shader.bindings));
    }
    if shader.params > limits.max_push_constants_size {
        let most = limits.max_push_constants_size;
        return Err(format!("it has {} bytes of parameters; the device takes {most}", shader.params));
    }
    if let Some(size) = shader.requires.subgroup_size {
        let (min, max) = (physical.v13.min_subgroup_size, physical.v13.max_subgroup_size);
        let stages = physical.v13.required_subgroup_size_stages;
        let fits = (min..=max).contains(&size)
            && size.is_power_of_two()
            && stages.contains(vk::ShaderStageFlags::COMPUTE)
            && x.is_multiple_of(size)
            && threads / size <= physical.v13.max_compute_workgroup_subgroups;
        if !fits {
            return Err(format!(
                "it needs full subgroups of {size} threads in workgroups of {x} × {y} × {z}; the device has {min} to {max}"
            ));
        }
    }
    Ok(shader.spirv.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn layout(core: &Core, shader: &Shader) -> Result<Layout, vk::Result> {
    let mut layouts = lock(&core.layouts);
    let key = (shader.bindings, shader.params);
    if let Some(layout) = layouts.get(&key) {
        return Ok(*layout);
    }
    let bindings: Vec<_> = (0..shader.bindings)
        .map(|binding| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        })
        .collect();
    let mut info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    if core.push.is_some() {
        info = info.flags(vk::DescriptorSetLayoutCreateFlags::PUSH_DESCRIPTOR_KHR);
    }
    // SAFETY: the info lives over the call.
    let set = unsafe { core.device.create_descriptor_set_layout(&info, None) }?;
    let sets = [set];
    let size = shader.params.next_multiple_of(4);
    let ranges = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(size)];
    let ranges = if size > 0 { &ranges[..] } else { &[] };
    let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets).push_constant_ranges(ranges);
    // SAFETY: as above; the set's layout is destroyed with the device, or here when it is of no use.
    match unsafe { core.device.create_pipeline_layout(&info, None) } {
        Ok(pipeline) => {
            let layout = Layout { set, pipeline };
            layouts.insert(key, layout);
            Ok(layout)
        }
        Err(error) => {
            // SAFETY: nobody knows of it yet.
            unsafe { core.device.destroy_descriptor_set_layout(set, None) };
            Err(error)
        }
    }
}
