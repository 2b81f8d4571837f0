//! From a plan to command buffers of Metal, and from their ends to values.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use block2::RcBlock;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSArray, NSError};
use objc2_metal::{
    MTLBarrierScope, MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandBufferDescriptor,
    MTLCommandBufferEncoderInfo, MTLCommandBufferEncoderInfoErrorKey, MTLCommandBufferErrorDomain,
    MTLCommandBufferErrorOption, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandEncoderErrorState,
    MTLCommandQueue, MTLComputeCommandEncoder, MTLDispatchType, MTLSize,
};

use super::buffer::MetalBuffer;
use super::core::{Core, MetalPlan};
use super::failure::Failure;
use super::ledger::{End, LANES};
use super::native::{RawBuffer, RawCommands, reason, text};
use super::pipeline::MetalPipeline;
use super::plan::{Launch, Pass};
use super::queue::Queue;
use crate::{DeviceError, Result};

type Compute = Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>;

/// Buffers and threadgroup variables that an encoder remembers.
const SLOTS: usize = 31;

/// Encodes a plan and commits it, one command buffer a part.
///
/// # Errors
/// How many were committed, and why the next was not.
pub(crate) fn hand_over(
    core: &Core,
    lane: usize,
    work: &Arc<MetalPlan>,
    first_tick: u64,
    after: [u64; LANES],
) -> Result<(), (u64, DeviceError)> {
    if let Some(capture) = &core.capture {
        capture.before(&core.device);
    }
    for (index, part) in work.parts.iter().enumerate() {
        let tick = first_tick + index as u64;
        let after = match index {
            0 => after,
            _ => std::array::from_fn(|other| if other == lane { tick - 1 } else { 0 }),
        };
        let last = index + 1 == work.parts.len();
        let committed = autoreleasepool(|_| {
            let label = match work.parts.len() {
                1 => work.label.to_string(),
                parts => format!("{} {} of {parts}", work.label, index + 1),
            };
            let commands = begin(core, &core.queues[lane], &label)?;
            for (other, &tick) in after.iter().enumerate().filter(|(_, tick)| **tick > 0) {
                let timeline = ProtocolObject::from_ref(&*core.queues[other].timeline);
                commands.encodeWaitForEvent_value(timeline, tick);
            }
            encode_part(core, &core.queues[lane], &commands, work, part, &label)?;
            let timeline = ProtocolObject::from_ref(&*core.queues[lane].timeline);
            commands.encodeSignalEvent_value(timeline, tick);
            report_end(core, &commands, lane, tick, work, last);
            commands.commit();
            Ok(())
        });
        committed.map_err(|error| (index as u64, error))?;
    }
    Ok(())
}

/// An empty command buffer that retains what it uses and tells which encoder failed.
fn begin(core: &Core, queue: &Queue, label: &str) -> Result<RawCommands> {
    let descriptor = MTLCommandBufferDescriptor::new();
    descriptor.setRetainedReferences(true);
    descriptor.setErrorOptions(MTLCommandBufferErrorOption::EncoderExecutionStatus);
    let commands = queue.raw.commandBufferWithDescriptor(&descriptor);
    let commands = commands.ok_or_else(|| out_of_commands(core, label))?;
    commands.setLabel(Some(&text(label)));
    Ok(commands)
}

fn out_of_commands(core: &Core, label: &str) -> DeviceError {
    core.meter.out_of_memory(&format!("command buffer '{label}'"), 0)
}

fn encode_part(
    core: &Core,
    queue: &Queue,
    commands: &RawCommands,
    plan: &MetalPlan,
    part: &[Pass],
    label: &str,
) -> Result<()> {
    for (index, pass) in part.iter().enumerate() {
        let (first, last) = (index == 0, index + 1 == part.len());
        match pass {
            Pass::Launches(range) => {
                let encoder = compute_encoder(core, commands, label)?;
                if !first {
                    encoder.waitForFence(&queue.fence);
                }
                let mut encoding = Launches::new(core, &encoder);
                for launch in &plan.launches[range.clone()] {
                    encoding.launch(plan, launch);
                }
                if !last {
                    encoder.updateFence(&queue.fence);
                }
                encoder.endEncoding();
            }
            Pass::Copies(range) => {
                let encoder = commands.blitCommandEncoder().ok_or_else(|| out_of_commands(core, label))?;
                encoder.setLabel(Some(&text(&format!("{label}: copies"))));
                if !first {
                    encoder.waitForFence(&queue.fence);
                }
                for [from, to] in &plan.copies[range.clone()] {
                    let size = (to.extent.end - to.extent.start) as usize;
                    let (source, target) = (from.buffer.raw(&core.filler.0), to.buffer.raw(&core.filler.0));
                    // SAFETY: both ranges lie in their buffers, whose bytes are of no type; the plan holds the buffers,
                    // and the ledger keeps the host away from them.
                    unsafe {
                        encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                            source,
                            from.offset as usize,
                            target,
                            to.offset as usize,
                            size,
                        );
                    }
                }
                if !last {
                    encoder.updateFence(&queue.fence);
                }
                encoder.endEncoding();
            }
        }
    }
    Ok(())
}

fn compute_encoder(core: &Core, commands: &RawCommands, label: &str) -> Result<Compute> {
    let encoder = commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent);
    let encoder = encoder.ok_or_else(|| out_of_commands(core, label))?;
    encoder.setLabel(Some(&text(label)));
    Ok(encoder)
}

/// What an encoder stands at, so that only what changes is set.
struct Launches<'a> {
    core: &'a Core,
    encoder: &'a Compute,
    pipeline: *const MetalPipeline,
    /// Buffer and offset; null where bytes were set, or nothing.
    buffers: [(*const MetalBuffer, u64); SLOTS],
    threadgroup: [u32; SLOTS],
}

impl<'a> Launches<'a> {
    fn new(core: &'a Core, encoder: &'a Compute) -> Self {
        let (pipeline, nothing) = (std::ptr::null(), std::ptr::null());
        Self { core, encoder, pipeline, buffers: [(nothing, 0); SLOTS], threadgroup: [0; SLOTS] }
    }

    fn launch(&mut self, plan: &MetalPlan, launch: &Launch<Arc<MetalPipeline>>) {
        let (encoder, pipeline) = (self.encoder, &*launch.pipeline);
        if launch.barrier {
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        }
        if !std::ptr::eq(self.pipeline, pipeline) {
            encoder.setComputePipelineState(&pipeline.raw);
            self.pipeline = pipeline;
        }
        let bounds = &plan.bounds[launch.bindings.clone()];
        for (index, bound) in bounds.iter().enumerate() {
            let place = (Arc::as_ptr(&bound.buffer), bound.offset);
            if self.buffers[index] != place {
                let raw = bound.buffer.raw(&self.core.filler.0);
                // An empty slice may lie at the very end of its buffer, where an offset is out of range.
                let empty = bound.extent.start == bound.extent.end;
                let (raw, offset) =
                    if empty { (&self.core.filler.0, 0) } else { (raw, bound.offset as usize) };
                // SAFETY: the offset lies in the buffer, which the plan holds; the index is below the limit that was
                // checked with the pipeline; hazards were checked while recording.
                unsafe { encoder.setBuffer_offset_atIndex(Some(raw), offset, index) };
                // An empty slice's place is not what was bound.
                self.buffers[index] = if empty { (std::ptr::null(), 0) } else { place };
            }
        }
        let after = bounds.len();
        self.bytes(&plan.params[launch.params.clone()], after);
        if pipeline.takes_sizes {
            let sizes: Vec<u32> = bounds
                .iter()
                .map(|bound| u32::try_from(bound.extent.end - bound.extent.start).unwrap_or(u32::MAX))
                .collect();
            self.bytes(bytemuck::cast_slice(&sizes), after + 1);
        }
        let lengths = pipeline.shader.threadgroup;
        for (index, set) in self.threadgroup.iter_mut().enumerate() {
            // What an earlier pipeline left set would count against the limit of this one.
            let length = lengths.get(index).copied().unwrap_or(0);
            if *set != length {
                // SAFETY: the index and the sum of the lengths are within the limits that were checked with the pipeline.
                unsafe { encoder.setThreadgroupMemoryLength_atIndex(length as usize, index) };
                *set = length;
            }
        }
        let [width, height, depth] = launch.groups.map(|n| n as usize);
        encoder
            .dispatchThreadgroups_threadsPerThreadgroup(MTLSize { width, height, depth }, pipeline.threads);
    }

    /// Sets bytes, if there are any, as the contents of a buffer.
    fn bytes(&mut self, bytes: &[u8], index: usize) {
        if bytes.is_empty() {
            return;
        }
        let start = NonNull::from(bytes).cast::<c_void>();
        // SAFETY: the bytes are copied by the call; the index is below the limit that was checked with the pipeline.
        unsafe { self.encoder.setBytes_length_atIndex(start, bytes.len(), index) };
        self.buffers[index] = (std::ptr::null(), 0);
    }
}

/// Has the end of a command buffer reported to the ledger.
fn report_end(
    core: &Core,
    commands: &RawCommands,
    lane: usize,
    tick: u64,
    work: &Arc<MetalPlan>,
    last: bool,
) {
    let (holder, label) = (core.hold(), work.label.clone());
    let handler = RcBlock::new(move |commands: NonNull<ProtocolObject<dyn MTLCommandBuffer>>| {
        // Nothing may unwind into the system's code that calls this.
        let reported = catch_unwind(AssertUnwindSafe(|| {
            autoreleasepool(|_| {
                let Some(core) = &holder else { return };
                // SAFETY: the system hands in the command buffer that has ended.
                let end = end_of(core, &label, unsafe { commands.as_ref() });
                core.ledger.ended(&**core, lane, tick, end);
                if let Some(capture) = core.capture.as_ref().filter(|_| last) {
                    capture.after();
                }
            });
        }));
        if reported.is_err() {
            tracing::error!("the end of command buffer '{label}' could not be reported");
        }
    });
    // SAFETY: the block is valid, may be called by any thread, and is copied by the call.
    unsafe { commands.addCompletedHandler(RcBlock::as_ptr(&handler)) };
}

fn end_of(core: &Core, label: &str, commands: &ProtocolObject<dyn MTLCommandBuffer>) -> End {
    match (commands.status(), commands.error()) {
        (MTLCommandBufferStatus::Completed, None) => Ok((commands.GPUStartTime(), commands.GPUEndTime())),
        (status, error) => {
            let failure = match error {
                Some(error) => failure(&error),
                None => Failure { text: format!("it ended with status {}", status.0), ..Failure::default() },
            };
            Err(failure.error(label, core.meter.in_use()))
        }
    }
}

fn failure(error: &NSError) -> Failure {
    // SAFETY: constants of the system, set before the program starts.
    let (domain, key) = unsafe { (MTLCommandBufferErrorDomain, MTLCommandBufferEncoderInfoErrorKey) };
    let code = (*error.domain() == *domain).then(|| usize::try_from(error.code()).unwrap_or(0));
    let infos = error.userInfo().objectForKey(key).and_then(|value| value.downcast::<NSArray>().ok());
    let mut encoders = Vec::new();
    for info in infos.iter().flat_map(|infos| infos.iter()) {
        // SAFETY: the system documents the elements under this key to be of this protocol.
        let info: Retained<ProtocolObject<dyn MTLCommandBufferEncoderInfo>> =
            unsafe { Retained::cast_unchecked(info) };
        let state = match info.errorState() {
            MTLCommandEncoderErrorState::Completed => continue,
            MTLCommandEncoderErrorState::Affected => "is affected",
            MTLCommandEncoderErrorState::Pending => "has not started",
            MTLCommandEncoderErrorState::Faulted => "is at fault",
            _ => "ended in an unknown state",
        };
        encoders.push(format!("'{}' {state}", info.label()));
    }
    Failure { code, text: reason(error), encoders }
}

/// Copies between two buffers and waits for the end: for the host's own reads and writes of private memory.
pub(crate) fn copy_and_wait(
    core: &Core,
    queue: &Queue,
    (from, from_offset): (&RawBuffer, u64),
    (to, to_offset): (&RawBuffer, u64),
    size: u64,
) -> Result<()> {
    let label = "host access";
    autoreleasepool(|_| {
        let commands = begin(core, queue, label)?;
        if [from_offset, to_offset, size].iter().all(|n| n.is_multiple_of(4)) {
            let encoder = commands.blitCommandEncoder().ok_or_else(|| out_of_commands(core, label))?;
            // SAFETY: both ranges lie in their buffers, and nobody else uses them: see `staging`.
            unsafe {
                encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                    from,
                    from_offset as usize,
                    to,
                    to_offset as usize,
                    size as usize,
                );
            }
            encoder.endEncoding();
        } else {
            copy_bytes(
                core,
                &compute_encoder(core, &commands, label)?,
                (from, from_offset),
                (to, to_offset),
                size,
            );
        }
        commands.commit();
        commands.waitUntilCompleted();
        end_of(core, label, &commands).map(drop)
    })
}

/// Encodes a copy of any alignment as a launch, and ends the encoder.
fn copy_bytes(core: &Core, encoder: &Compute, from: (&RawBuffer, u64), to: (&RawBuffer, u64), size: u64) {
    if let Some(pipeline) = core.copy_bytes.get() {
        let mut launches = Launches::new(core, encoder);
        encoder.setComputePipelineState(&pipeline.raw);
        for (index, (raw, offset)) in [from, to].into_iter().enumerate() {
            // SAFETY: as in `copy_and_wait`.
            unsafe { encoder.setBuffer_offset_atIndex(Some(raw), offset as usize, index) };
        }
        launches.bytes(&size.to_ne_bytes(), 2);
        let width = size.div_ceil(16 * 256) as usize;
        encoder.dispatchThreadgroups_threadsPerThreadgroup(
            MTLSize { width, height: 1, depth: 1 },
            pipeline.threads,
        );
    }
    encoder.endEncoding();
}
