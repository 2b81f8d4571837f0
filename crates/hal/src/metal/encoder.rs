//! Recording a plan.

use std::sync::Arc;

use super::buffer::MetalBuffer;
use super::core::{Core, MetalPlan};
use super::pipeline::MetalPipeline;
use super::plan::{Planner, Rules};
use crate::{Binding, CommandBuffer, DeviceError, Dispatch, Encoder, QueueKind, Result, Slice};

/// Alignment of a binding in its buffer: that of the largest type of MSL that kernels read.
pub(crate) const BINDING_ALIGNMENT: u64 = 16;
/// Workgroups along an axis at most: the position of a thread in the whole grid must fit 32 bits.
pub(crate) const MAX_GROUPS: u32 = u32::MAX / 1024;
/// What offsets and sizes of a blit are multiples of: some GPUs demand it.
const BLIT_ALIGNMENT: u64 = 4;
/// Bytes that a workgroup of [`super::pipeline::COPY_BYTES`] copies.
const COPIED_BY_GROUP: u64 = 16 * 256;

pub(crate) struct MetalEncoder {
    core: Arc<Core>,
    planner: Planner<Arc<MetalPipeline>, Arc<MetalBuffer>>,
    /// Of the caller; copies that are made by a launch do not count.
    dispatches: usize,
}

/// What a command buffer is behind its handle.
pub(crate) struct MetalCommands {
    pub(crate) plan: Arc<MetalPlan>,
    dispatches: usize,
}

impl MetalCommands {
    /// The plan behind a command buffer, if the queue of this device can run it.
    pub(crate) fn of(commands: &CommandBuffer, core: &Core, queue: QueueKind) -> Result<Arc<MetalPlan>> {
        let usage = |rule: &str| DeviceError::Usage(format!("submission '{}': {rule}", commands.label));
        let native = commands.native.downcast_ref::<Self>().filter(|native| native.plan.device == core.id);
        let native = native.ok_or_else(|| usage("its commands were recorded for another device"))?;
        if queue == QueueKind::Transfer && native.dispatches > 0 {
            return Err(usage("the transfer queue runs copies only; submit dispatches to the compute queue"));
        }
        Ok(native.plan.clone())
    }
}

impl MetalEncoder {
    pub(crate) fn new(core: &Arc<Core>, label: &str) -> Result<Self> {
        core.ledger.alive()?;
        Ok(Self { core: core.clone(), planner: Planner::new(core.id, label), dispatches: 0 })
    }

    fn refused(&self, what: &str, rule: &str) -> DeviceError {
        DeviceError::Usage(format!("{what} in '{}': {rule}", self.planner.label()))
    }

    fn rules(&self, pipeline: &MetalPipeline) -> Rules {
        let shader = pipeline.shader;
        Rules {
            bindings: shader.bindings,
            written: shader.written,
            params: shader.params,
            max_groups: [MAX_GROUPS; 3],
            alignment: BINDING_ALIGNMENT,
        }
    }
}

impl Encoder for MetalEncoder {
    fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()> {
        let label = dispatch.pipeline.label;
        let what = || format!("dispatch of '{label}'");
        let pipeline = dispatch.pipeline.native.clone().downcast::<MetalPipeline>().ok();
        let Some(pipeline) = pipeline.filter(|pipeline| pipeline.device == self.core.id) else {
            return Err(self.refused(&what(), "its pipeline is of another device"));
        };
        let bind = |binding: &Binding| MetalBuffer::binding(binding, self.core.id);
        let bindings = dispatch.bindings.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let rules = self.rules(&pipeline);
        let recorded =
            self.planner.launch(label, pipeline, &rules, bindings, &dispatch.params, dispatch.groups);
        recorded.map_err(|rule| self.refused(&what(), &rule))?;
        self.dispatches += 1;
        Ok(())
    }

    fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        let device = self.core.id;
        let (source, target) =
            (MetalBuffer::bound(from, false, device)?, MetalBuffer::bound(to, true, device)?);
        let aligned = [from.offset, to.offset, to.size].iter().all(|n| n.is_multiple_of(BLIT_ALIGNMENT));
        let recorded = match self.core.copy_bytes.get().filter(|_| !aligned && from.size == to.size) {
            Some(pipeline) => {
                let rules = Rules { alignment: 1, ..self.rules(pipeline) };
                let groups = u32::try_from(to.size.div_ceil(COPIED_BY_GROUP)).unwrap_or(u32::MAX);
                let (pipeline, params) = (pipeline.clone(), to.size.to_ne_bytes());
                self.planner.launch("copy", pipeline, &rules, vec![source, target], &params, [groups, 1, 1])
            }
            None => self.planner.copy(source, target),
        };
        recorded.map_err(|rule| self.refused("copy", &rule))
    }

    fn barrier(&mut self) {
        self.planner.barrier();
    }

    fn finish(self: Box<Self>) -> Result<CommandBuffer> {
        let Self { core, planner, dispatches } = *self;
        let plan = Arc::new(planner.finish(core.parts));
        Ok(CommandBuffer { label: plan.label.clone(), native: Arc::new(MetalCommands { plan, dispatches }) })
    }
}
