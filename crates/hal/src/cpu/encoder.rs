//! Recording, with the checks that make a command list safe to run.
//!
//! - Every rule of the contract is checked *here*, once, so that running needs no check. What cannot be known here,
//!   the element types of a kernel, is checked at the launch.
//! - Hazards are found in two sets of *addresses* since the last barrier, read and written. The sets answer in
//!   logarithmic time; only a refusal looks for the earlier command, to name it.
//! - A refused command leaves the recording as it was.

use std::any::Any;
use std::sync::Arc;

use super::extent::ExtentSet;
use super::invocation::{Bound, CpuKernel};
use super::memory::resolve;
use super::program::{Command, CommandList, Counts, Program, Stage, Work, copy_groups};
use crate::{
    Access, Binding, Code, CommandBuffer, DeviceError, Dispatch, Encoder, Pipeline, PipelineDesc, Result,
    Slice, Tiling,
};

/// Bindings of a launch at most: one bit each in [`super::Invocation`].
const MAX_BINDINGS: usize = 32;
/// Bytes of parameters at most: what every GPU gives as push constants.
const MAX_PARAMS: usize = 128;

/// What a pipeline is behind its handle.
pub(crate) struct CpuPipeline {
    device: u64,
    kernel: CpuKernel,
}

impl CpuPipeline {
    pub(crate) fn handle(device: u64, desc: &PipelineDesc) -> Result<Pipeline> {
        let Code::Cpu(kernel) = desc.code else {
            return Err(DeviceError::Pipeline {
                label: desc.label.into(),
                reason: "this device runs functions, given a shader: take the CPU form of the kernel".into(),
            });
        };
        Ok(Pipeline { label: desc.label, native: Arc::new(Self { device, kernel }) })
    }
}

pub(crate) struct ListEncoder {
    device: u64,
    label: Arc<str>,
    program: Program,
    counts: Counts,
    keep: Vec<Arc<dyn Any + Send + Sync>>,
    /// First command after the last barrier.
    stage_start: usize,
    read: ExtentSet,
    written: ExtentSet,
}

impl ListEncoder {
    pub(crate) fn new(device: u64, label: &str) -> Self {
        Self {
            device,
            label: label.into(),
            program: Program::default(),
            counts: Counts::default(),
            keep: Vec::new(),
            stage_start: 0,
            read: ExtentSet::default(),
            written: ExtentSet::default(),
        }
    }

    /// Adds a command whose bounds are already at the end of the program, from `first_bound` on.
    fn push(&mut self, work: Work, first_bound: usize, params: &[u8], groups: usize) -> Result<()> {
        let fits = u32::try_from(self.program.bounds.len()).is_ok()
            && u32::try_from(self.program.params.len() + params.len()).is_ok();
        let first_ticket = self.program.total();
        let Some(end_ticket) = first_ticket.checked_add(groups as u64).filter(|_| fits) else {
            return Err(DeviceError::OutOfMemory {
                what: format!("command buffer '{}'", self.label),
                requested: groups as u64,
                available: u64::from(u32::MAX),
            });
        };
        self.check_hazards(work, first_bound)?;
        for bound in &self.program.bounds[first_bound..] {
            let set = if bound.writes() { &mut self.written } else { &mut self.read };
            set.insert(bound.extent());
        }
        let first_param = self.program.params.len();
        self.program.params.extend_from_slice(params);
        self.program.commands.push(Command {
            work,
            bounds: first_bound as u32..self.program.bounds.len() as u32,
            params: first_param as u32..self.program.params.len() as u32,
            tickets: first_ticket..end_ticket,
        });
        Ok(())
    }

    fn check_hazards(&self, work: Work, first_bound: usize) -> Result<()> {
        let bounds = &self.program.bounds[first_bound..];
        for (i, bound) in bounds.iter().enumerate() {
            let extent = bound.extent();
            if bound.writes() {
                let other =
                    bounds.iter().enumerate().position(|(j, b)| j != i && b.extent().overlaps(extent));
                if let Some(j) = other {
                    return Err(DeviceError::Usage(format!(
                        "{} in '{}': written binding {i} overlaps binding {j}",
                        name(self.program.commands.len(), work),
                        self.label,
                    )));
                }
            }
            if self.written.overlaps(extent) || (bound.writes() && self.read.overlaps(extent)) {
                return Err(self.hazard(work, i, bound));
            }
        }
        Ok(())
    }

    #[cold]
    fn hazard(&self, work: Work, index: usize, bound: &Bound) -> DeviceError {
        let conflicts = |command: &Command| {
            let mut earlier = self.program.bounds_of(command).iter();
            earlier.any(|b| (b.writes() || bound.writes()) && b.extent().overlaps(bound.extent()))
        };
        let earlier = (self.stage_start..self.program.commands.len())
            .find(|&i| conflicts(&self.program.commands[i]))
            .map_or_else(|| "an earlier command".into(), |i| name(i, self.program.commands[i].work));
        DeviceError::Usage(format!(
            "{} in '{}': binding {index} conflicts with {earlier}; record a barrier between them",
            name(self.program.commands.len(), work),
            self.label,
        ))
    }

    fn record_dispatch(&mut self, dispatch: &Dispatch, first_bound: usize) -> Result<()> {
        let label = dispatch.pipeline.label;
        let usage = |rule: String| Err(DeviceError::Usage(format!("dispatch of '{label}': {rule}")));
        let pipeline = dispatch.pipeline.native.downcast_ref::<CpuPipeline>();
        let Some(pipeline) = pipeline.filter(|p| p.device == self.device) else {
            return usage("its pipeline is of another device".into());
        };
        if dispatch.bindings.len() > MAX_BINDINGS {
            return usage(format!("{} bindings; at most {MAX_BINDINGS}", dispatch.bindings.len()));
        }
        if dispatch.params.len() > MAX_PARAMS {
            return usage(format!("{} bytes of parameters; at most {MAX_PARAMS}", dispatch.params.len()));
        }
        let [groups, 1, 1] = dispatch.groups.map(|n| n as usize) else {
            return usage(format!("{:?} workgroups; this device has one axis", dispatch.groups));
        };
        for (index, Binding { slice, access }) in dispatch.bindings.iter().enumerate() {
            let fits = match access {
                Access::Read => Ok(()),
                Access::Write(tiling) => check_tiling(tiling, slice, groups),
                Access::WriteAny => Err("this device writes by tiles: declare a tiling".into()),
            };
            if let Err(rule) = fits {
                return usage(format!("binding {index} (buffer '{}'): {rule}", slice.buffer.label()));
            }
            let ptr = resolve(self.device, slice)?;
            self.program.bounds.push(Bound { ptr, len: slice.size as usize, access: *access });
        }
        let work = Work::Kernel { label, kernel: pipeline.kernel };
        self.push(work, first_bound, &dispatch.params, groups)
    }

    fn record_copy(&mut self, from: &Slice, to: &Slice, first_bound: usize) -> Result<()> {
        if from.size != to.size {
            return Err(DeviceError::Usage(format!(
                "copy of {} bytes of buffer '{}' to {} bytes of buffer '{}': sizes must be equal",
                from.size,
                from.buffer.label(),
                to.size,
                to.buffer.label()
            )));
        }
        let len = from.size as usize;
        let source = Bound { ptr: resolve(self.device, from)?, len, access: Access::Read };
        let target =
            Bound { ptr: resolve(self.device, to)?, len, access: Access::Write(Tiling::whole(1, len)) };
        self.program.bounds.extend([source, target]);
        self.push(Work::Copy, first_bound, &[], copy_groups(len))
    }

    /// A refusal names bindings by index; this adds what their buffers are called.
    fn refused(&mut self, first_bound: usize, error: DeviceError, slices: &[&Slice]) -> DeviceError {
        self.program.bounds.truncate(first_bound);
        let DeviceError::Usage(rule) = error else { return error };
        let buffers: Vec<_> =
            slices.iter().map(|s| format!("{}+{} of {:?}", s.offset, s.size, s.buffer)).collect();
        DeviceError::Usage(format!("{rule} (bindings: {})", buffers.join(", ")))
    }

    fn end_stage(&mut self) {
        if let Some(first) = self.program.commands.get(self.stage_start) {
            let tickets = first.tickets.start..self.program.total();
            if !tickets.is_empty() {
                self.program.stages.push(Stage { tickets, first_command: self.stage_start });
            }
        }
        self.stage_start = self.program.commands.len();
        self.read.clear();
        self.written.clear();
    }
}

impl Encoder for ListEncoder {
    fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()> {
        let first_bound = self.program.bounds.len();
        if let Err(error) = self.record_dispatch(dispatch, first_bound) {
            let slices: Vec<_> = dispatch.bindings.iter().map(|b| &b.slice).collect();
            return Err(self.refused(first_bound, error, &slices));
        }
        self.keep.extend(dispatch.bindings.iter().map(|b| b.slice.buffer.native.clone()));
        self.counts.dispatches += 1;
        Ok(())
    }

    fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        let first_bound = self.program.bounds.len();
        if let Err(error) = self.record_copy(from, to, first_bound) {
            return Err(self.refused(first_bound, error, &[from, to]));
        }
        self.keep.extend([from.buffer.native.clone(), to.buffer.native.clone()]);
        self.counts.copies += 1;
        Ok(())
    }

    fn barrier(&mut self) {
        self.end_stage();
        self.counts.barriers += 1;
    }

    fn finish(mut self: Box<Self>) -> Result<CommandBuffer> {
        self.end_stage();
        let Self { device, label, program, counts, keep, .. } = *self;
        let list =
            CommandList { device, label: label.clone(), program: Arc::new(program), counts, _keep: keep };
        Ok(CommandBuffer { label, native: Arc::new(list) })
    }
}

fn name(index: usize, work: Work) -> String {
    match work {
        Work::Kernel { label, .. } => format!("command {index} (dispatch of '{label}')"),
        Work::Copy => format!("command {index} (copy)"),
    }
}

/// The element size is not known yet, so a matrix fits when it does with elements of one byte; the launch checks the
/// rest.
fn check_tiling(tiling: &Tiling, slice: &Slice, groups: usize) -> Result<(), String> {
    let Tiling { rows, cols, tile_rows, tile_cols } = *tiling;
    let elements = rows.checked_mul(cols).filter(|&n| n as u64 <= slice.size);
    let Some(elements) = elements else {
        return Err(format!("a matrix of {rows} × {cols} does not fit a slice of {} bytes", slice.size));
    };
    if elements > 0 && (tile_rows == 0 || tile_cols == 0) {
        return Err(format!("tiles of {tile_rows} × {tile_cols} elements; both must be at least 1"));
    }
    let tiles = if elements == 0 { 0 } else { tiling.groups() };
    if tiles != groups {
        return Err(format!(
            "the tiling has {tiles} tiles, the dispatch {groups} workgroups; make them equal"
        ));
    }
    Ok(())
}
