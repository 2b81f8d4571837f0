//! Recording, straight into a Vulkan command buffer, with the checks of a launch.
//!
//! - A refused command leaves the recording as it was.
//! - Hazards between commands are *not* looked for: the CPU device does that for everything recorded the same way, and
//!   the validation layer for what is recorded for GPUs alone.
#![allow(unsafe_code)]

use std::any::Any;
use std::sync::{Arc, Mutex};

use ash::vk;

use super::buffer::VulkanBuffer;
use super::commands::{CommandList, Recording, Step};
use super::core::Core;
use super::footprint::Footprint;
use super::lane::{COMPUTE, barrier};
use super::pipeline::VulkanPipeline;
use crate::cpu::Extent;
use crate::{Binding, CommandBuffer, DeviceError, Dispatch, Encoder, Result, Slice};

/// Bindings of a launch at most: the bits of [`crate::Shader::written`].
const MAX_BINDINGS: usize = 32;
/// Descriptor sets in a pool, where descriptors cannot be pushed.
const POOL_SETS: u32 = 256;

pub(crate) struct VulkanEncoder {
    core: Arc<Core>,
    label: Arc<str>,
    /// `None` once finished.
    recording: Option<Recording>,
    keep: Vec<Arc<dyn Any + Send + Sync>>,
    read: Vec<Extent>,
    written: Vec<Extent>,
    steps: Vec<Step>,
    dispatches: u64,
    /// The pipeline bound last.
    bound: vk::Pipeline,
    /// Nothing was recorded since the last barrier.
    fresh: bool,
    descriptors: Vec<vk::DescriptorPool>,
    /// Sets and descriptors left in the last pool.
    sets_left: u32,
}

/// What a launch binds, in Vulkan's form.
struct Bound {
    infos: [vk::DescriptorBufferInfo; MAX_BINDINGS],
    extents: [Extent; MAX_BINDINGS],
    count: usize,
}

impl VulkanEncoder {
    pub(crate) fn new(core: &Arc<Core>, label: &str) -> Result<Self> {
        core.alive()?;
        let recording = Recording::begin(core, core.lanes[COMPUTE].family)
            .map_err(|result| core.error(&format!("command buffer '{label}'"), result))?;
        Ok(Self {
            core: core.clone(),
            label: label.into(),
            recording: Some(recording),
            keep: Vec::new(),
            read: Vec::new(),
            written: Vec::new(),
            steps: Vec::new(),
            dispatches: 0,
            bound: vk::Pipeline::null(),
            fresh: true,
            descriptors: Vec::new(),
            sets_left: 0,
        })
    }

    fn commands(&self) -> vk::CommandBuffer {
        self.recording.map_or(vk::CommandBuffer::null(), |r| r.commands)
    }

    /// Checks a launch and finds what it binds.
    fn check(&self, dispatch: &Dispatch) -> Result<(Arc<VulkanPipeline>, Bound), String> {
        let pipeline = dispatch.pipeline.native.clone().downcast::<VulkanPipeline>().ok();
        let Some(pipeline) = pipeline.filter(|p| p.core.id == self.core.id) else {
            return Err("its pipeline is of another device".into());
        };
        let shader = pipeline.shader;
        let limits = &self.core.physical.limits;
        let count = dispatch.bindings.len();
        if count != shader.bindings as usize || count > MAX_BINDINGS {
            return Err(format!("{count} bindings; the shader has {}", shader.bindings));
        }
        if dispatch.params.len() != shader.params as usize {
            return Err(format!(
                "{} bytes of parameters; the shader has {}",
                dispatch.params.len(),
                shader.params
            ));
        }
        let most = limits.max_compute_work_group_count;
        if (0..3).any(|i| dispatch.groups[i] > most[i]) {
            return Err(format!("{:?} workgroups; the device takes {most:?}", dispatch.groups));
        }
        let mut bound = Bound {
            infos: [vk::DescriptorBufferInfo::default(); MAX_BINDINGS],
            extents: [Extent::new(0, 0); MAX_BINDINGS],
            count,
        };
        for (index, binding) in dispatch.bindings.iter().enumerate() {
            let checked = self.check_binding(index, binding, shader.written);
            let (info, extent) = checked.map_err(|rule| {
                format!("binding {index} (buffer '{}'): {rule}", binding.slice.buffer.label())
            })?;
            (bound.infos[index], bound.extents[index]) = (info, extent);
        }
        for (i, binding) in dispatch.bindings.iter().enumerate().filter(|(_, b)| b.writes()) {
            let extent = bound.extents[i];
            if let Some(j) = (0..count).find(|&j| j != i && bound.extents[j].overlaps(extent)) {
                let other = &dispatch.bindings[j].slice;
                return Err(format!(
                    "written binding {i} ({}) overlaps binding {j} ({})",
                    place(&binding.slice),
                    place(other)
                ));
            }
        }
        Ok((pipeline, bound))
    }

    fn check_binding(
        &self,
        index: usize,
        binding: &Binding,
        written: u32,
    ) -> Result<(vk::DescriptorBufferInfo, Extent), String> {
        let slice = &binding.slice;
        let limits = &self.core.physical.limits;
        let Some(buffer) = slice.buffer.native.downcast_ref::<VulkanBuffer>() else {
            return Err("it is of another device".into());
        };
        if buffer.device != self.core.id {
            return Err("it is of another device".into());
        }
        if written & (1 << index) != 0 && !binding.writes() {
            return Err("the shader writes it, and the launch only reads it; bind it as written".into());
        }
        if slice.size > u64::from(limits.max_storage_buffer_range) {
            let most = limits.max_storage_buffer_range;
            return Err(format!("{} bytes; the device binds at most {most}", slice.size));
        }
        let alignment = limits.min_storage_buffer_offset_alignment;
        if !slice.offset.is_multiple_of(alignment) {
            return Err(format!("offset {} is not a multiple of {alignment}", slice.offset));
        }
        let info = if slice.size == 0 {
            let filler = self.core.filler.get().map_or(vk::Buffer::null(), |f| f.0);
            vk::DescriptorBufferInfo { buffer: filler, offset: 0, range: vk::WHOLE_SIZE }
        } else {
            vk::DescriptorBufferInfo { buffer: buffer.raw, offset: slice.offset, range: slice.size }
        };
        Ok((info, buffer.extent(slice)))
    }

    /// A set with these descriptors, where they cannot be pushed.
    fn descriptor_set(&mut self, layout: vk::DescriptorSetLayout) -> Result<vk::DescriptorSet, vk::Result> {
        let device = &self.core.device;
        if self.sets_left == 0 {
            let sizes = [vk::DescriptorPoolSize::default()
                .ty(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(POOL_SETS * MAX_BINDINGS as u32)];
            let info = vk::DescriptorPoolCreateInfo::default().max_sets(POOL_SETS).pool_sizes(&sizes);
            // SAFETY: the info lives over the call.
            self.descriptors.push(unsafe { device.create_descriptor_pool(&info, None) }?);
            self.sets_left = POOL_SETS;
        }
        let pool = self.descriptors.last().copied().unwrap_or_default();
        let layouts = [layout];
        let info = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
        // SAFETY: the pool is this encoder's alone and has room.
        let set = unsafe { device.allocate_descriptor_sets(&info) }?[0];
        self.sets_left -= 1;
        Ok(set)
    }

    fn bind(&mut self, pipeline: &VulkanPipeline, bound: &Bound) -> Result<(), vk::Result> {
        let commands = self.commands();
        let point = vk::PipelineBindPoint::COMPUTE;
        // One write fills the bindings one after the other, because they are alike.
        let write = vk::WriteDescriptorSet::default()
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .buffer_info(&bound.infos[..bound.count]);
        let layout = pipeline.layout;
        if bound.count > 0 {
            if let Some(push) = &self.core.push {
                // SAFETY: the buffers are held by the list, the layout by the device.
                unsafe { push.cmd_push_descriptor_set(commands, point, layout.pipeline, 0, &[write]) };
            } else {
                let set = self.descriptor_set(layout.set)?;
                let device = &self.core.device;
                // SAFETY: as above; the set is new, so no pending commands use it.
                unsafe {
                    device.update_descriptor_sets(&[write.dst_set(set)], &[]);
                    device.cmd_bind_descriptor_sets(commands, point, layout.pipeline, 0, &[set], &[]);
                }
            }
        }
        if self.bound != pipeline.raw {
            // SAFETY: the list holds the pipeline.
            unsafe { self.core.device.cmd_bind_pipeline(commands, point, pipeline.raw) };
            self.bound = pipeline.raw;
        }
        Ok(())
    }

    fn use_bytes(&mut self, extent: Extent, writes: bool) {
        if extent.start < extent.end {
            if writes { &mut self.written } else { &mut self.read }.push(extent);
        }
    }
}

impl Encoder for VulkanEncoder {
    fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()> {
        let label = dispatch.pipeline.label;
        let (pipeline, bound) = self.check(dispatch).map_err(|rule| {
            DeviceError::Usage(format!("dispatch of '{label}' in '{}': {rule}", self.label))
        })?;
        self.bind(&pipeline, &bound)
            .map_err(|result| self.core.error(&format!("dispatch of '{label}'"), result))?;
        let commands = self.commands();
        let [x, y, z] = dispatch.groups;
        // SAFETY: recording is under way, pipeline and descriptors are bound, and the launch is within the limits.
        unsafe {
            let device = &self.core.device;
            if !dispatch.params.is_empty() {
                let stage = vk::ShaderStageFlags::COMPUTE;
                device.cmd_push_constants(commands, pipeline.layout.pipeline, stage, 0, &dispatch.params);
            }
            device.cmd_dispatch(commands, x, y, z);
        }
        for (index, binding) in dispatch.bindings.iter().enumerate() {
            self.use_bytes(bound.extents[index], binding.writes());
            self.keep.push(binding.slice.buffer.native.clone());
        }
        self.keep.push(pipeline);
        self.dispatches += 1;
        self.fresh = false;
        // The transfer queue will not run this.
        self.steps = Vec::new();
        Ok(())
    }

    fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        let usage = |rule: String| Err(DeviceError::Usage(format!("copy in '{}': {rule}", self.label)));
        if from.size != to.size {
            return usage(format!("{} to {}: sizes must be equal", place(from), place(to)));
        }
        let (source, target) = (VulkanBuffer::of(from, self.core.id)?, VulkanBuffer::of(to, self.core.id)?);
        let (read, written) = (source.extent(from), target.extent(to));
        if read.overlaps(written) {
            return usage(format!("{} overlaps {}", place(from), place(to)));
        }
        if from.size == 0 {
            return Ok(());
        }
        let region = vk::BufferCopy { src_offset: from.offset, dst_offset: to.offset, size: from.size };
        let step = Step::Copy { from: source.raw, to: target.raw, region };
        // SAFETY: recording is under way, both ranges lie in their buffers, and the list will hold these.
        unsafe { step.record(&self.core.device, self.commands()) };
        self.use_bytes(read, false);
        self.use_bytes(written, true);
        self.keep.extend([from.buffer.native.clone(), to.buffer.native.clone()]);
        self.fresh = false;
        if self.dispatches == 0 {
            self.steps.push(step);
        }
        Ok(())
    }

    fn barrier(&mut self) {
        use vk::{AccessFlags2 as Access, PipelineStageFlags2 as Stage};
        if std::mem::replace(&mut self.fresh, true) {
            return;
        }
        let stages = Stage::COMPUTE_SHADER | Stage::ALL_TRANSFER;
        let written = Access::SHADER_STORAGE_WRITE | Access::TRANSFER_WRITE;
        let used = written | Access::SHADER_STORAGE_READ | Access::TRANSFER_READ;
        let all = [barrier(stages, written, stages, used)];
        let dependency = vk::DependencyInfo::default().memory_barriers(&all);
        // SAFETY: recording is under way.
        unsafe { self.core.device.cmd_pipeline_barrier2(self.commands(), &dependency) };
        if self.dispatches == 0 {
            self.steps.push(Step::Barrier);
        }
    }

    fn finish(mut self: Box<Self>) -> Result<CommandBuffer> {
        let recording =
            self.recording.take().ok_or_else(|| DeviceError::Usage("recording has ended".into()))?;
        let list = CommandList {
            core: self.core.clone(),
            label: self.label.clone(),
            dispatches: self.dispatches,
            footprint: Footprint::new(std::mem::take(&mut self.read), std::mem::take(&mut self.written)),
            main: recording,
            steps: std::mem::take(&mut self.steps),
            transfer: Mutex::new(None),
            descriptors: std::mem::take(&mut self.descriptors),
            _keep: std::mem::take(&mut self.keep),
        };
        // SAFETY: recording is under way, and ends here. When it fails, dropping the list returns everything.
        let ended = unsafe { self.core.device.end_command_buffer(recording.commands) };
        ended.map_err(|result| self.core.error(&format!("command buffer '{}'", self.label), result))?;
        self.core.name(recording.commands, &self.label);
        Ok(CommandBuffer { label: self.label.clone(), native: Arc::new(list) })
    }
}

impl Drop for VulkanEncoder {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            recording.free(&self.core);
        }
        for pool in self.descriptors.drain(..) {
            // SAFETY: the commands that used its sets were given up above.
            unsafe { self.core.device.destroy_descriptor_pool(pool, None) };
        }
    }
}

fn place(slice: &Slice) -> String {
    format!("{}+{} of {:?}", slice.offset, slice.size, slice.buffer)
}
