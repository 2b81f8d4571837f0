//! What is recorded, submitted, and waited for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Buffer, Code, DeviceError, Event, Result, Slice};

/// What [`crate::Device::create_pipeline`] needs.
#[derive(Clone, Copy, Debug)]
pub struct PipelineDesc {
    /// Name of the kernel.
    pub label: &'static str,
    /// The kernel, in the form that the device runs.
    pub code: Code,
}

/// A kernel that a device can launch.
#[derive(Clone)]
pub struct Pipeline {
    pub(crate) label: &'static str,
    pub(crate) native: Arc<dyn Any + Send + Sync>,
}

impl Pipeline {
    /// Name of the kernel.
    pub fn label(&self) -> &'static str {
        self.label
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({})", self.label)
    }
}

/// How a dispatch uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Written by tiles, and perhaps read before (`x += y`).
    Write(Tiling),
    /// Written by whichever workgroup the kernel lets write, and perhaps read before: [`Code::Gpu`] only, since the CPU
    /// device hands out tiles.
    WriteAny,
}

/// How the workgroups of a dispatch share a written binding: a matrix of `rows × cols` elements, cut into tiles of
/// `tile_rows × tile_cols`; workgroup `g` owns tile `(g / tiles_across, g % tiles_across)`, smaller at the edges.
///
/// The CPU device hands each workgroup its own tile and nothing else, so workgroups cannot race by construction.
/// Several written bindings of one dispatch must have the same number of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of the matrix.
    pub rows: usize,
    /// Elements of a row; rows are contiguous.
    pub cols: usize,
    /// Rows of a tile.
    pub tile_rows: usize,
    /// Columns of a tile.
    pub tile_cols: usize,
}

impl Tiling {
    /// One tile for everything.
    pub fn whole(rows: usize, cols: usize) -> Self {
        Self { rows, cols, tile_rows: rows, tile_cols: cols }
    }

    /// Tiles of `tile_rows` whole rows.
    pub fn by_rows(rows: usize, cols: usize, tile_rows: usize) -> Self {
        Self { rows, cols, tile_rows, tile_cols: cols }
    }

    /// Tiles of `tile_cols` columns through all rows.
    pub fn by_cols(rows: usize, cols: usize, tile_cols: usize) -> Self {
        Self { rows, cols, tile_rows: rows, tile_cols }
    }

    /// Tiles side by side.
    pub fn across(&self) -> usize {
        self.cols.div_ceil(self.tile_cols.max(1))
    }

    /// Tiles in all: the number of workgroups.
    pub fn groups(&self) -> usize {
        self.rows.div_ceil(self.tile_rows.max(1)) * self.across()
    }

    /// [`Tiling::groups`] as a launch takes them.
    pub fn grid(&self) -> [u32; 3] {
        line(self.groups())
    }
}

/// `groups` workgroups along x. More than a launch can have become as many as it can: the device refuses them.
pub fn line(groups: usize) -> [u32; 3] {
    [u32::try_from(groups).unwrap_or(u32::MAX), 1, 1]
}

/// A range of a buffer as a kernel sees it.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The bytes.
    pub slice: Slice,
    /// How they are used.
    pub access: Access,
}

impl Binding {
    /// Read by every workgroup.
    pub fn read(slice: Slice) -> Self {
        Self { slice, access: Access::Read }
    }

    /// Written by tiles.
    pub fn write(slice: Slice, tiling: Tiling) -> Self {
        Self { slice, access: Access::Write(tiling) }
    }

    /// Written by any workgroup of a [`Code::Gpu`] kernel.
    pub fn write_any(slice: Slice) -> Self {
        Self { slice, access: Access::WriteAny }
    }

    /// Whether workgroups may write it.
    pub fn writes(&self) -> bool {
        matches!(self.access, Access::Write(_) | Access::WriteAny)
    }
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel.
    pub pipeline: Pipeline,
    /// What it reads and writes, in the kernel's order.
    pub bindings: Vec<Binding>,
    /// The kernel's parameters as plain bytes (at most 128, 8-byte aligned when read).
    pub params: Vec<u8>,
    /// Number of workgroups along x, y and z; [`Code::Cpu`] kernels have only x.
    pub groups: [u32; 3],
}

/// Records commands. Dropping it without [`Encoder::finish`] drops what was recorded.
pub trait Encoder: Send {
    /// Records a launch.
    ///
    /// # Errors
    /// [`DeviceError::Usage`] when a written binding overlaps another binding of the same launch, when a tiling does
    /// not fit its slice or the number of workgroups, or (CPU) when it conflicts with an earlier command that no
    /// barrier separates from it.
    fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()>;

    /// Records a copy of `from` to `to`, equal in size.
    ///
    /// # Errors
    /// As [`Encoder::dispatch`].
    fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()>;

    /// Everything after it sees the writes of everything before it.
    fn barrier(&mut self);

    /// Ends recording.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when the device cannot hold the commands.
    fn finish(self: Box<Self>) -> Result<CommandBuffer>;
}

/// Recorded commands. Keeps every buffer and pipeline in it alive.
#[derive(Clone)]
pub struct CommandBuffer {
    pub(crate) label: Arc<str>,
    pub(crate) native: Arc<dyn Any + Send + Sync>,
}

impl CommandBuffer {
    /// The label it was recorded under.
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Debug for CommandBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandBuffer({})", self.label)
    }
}

/// A submission to be made: wait for these, run this, signal those.
#[derive(Clone, Copy, Debug)]
pub struct Submit<'a> {
    /// What to run.
    pub commands: &'a CommandBuffer,
    /// Starts when each event has reached its value.
    pub wait: &'a [(Event, u64)],
    /// Raised when the commands are done, before [`Submission::wait`] returns. When they failed, the values up to
    /// these carry the error.
    pub signal: &'a [(Event, u64)],
}

impl<'a> Submit<'a> {
    /// Run `commands`, with no events.
    pub fn new(commands: &'a CommandBuffer) -> Self {
        Self { commands, wait: &[], signal: &[] }
    }
}

/// Start and end of a submission on the device, in nanoseconds of one monotonic clock per device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When the first command started.
    pub start_ns: u64,
    /// When the last command ended.
    pub end_ns: u64,
}

/// A command buffer under way. Dropping it does not stop the work.
#[derive(Clone)]
pub struct Submission {
    pub(crate) state: Arc<dyn SubmissionState>,
}

pub(crate) trait SubmissionState: Send + Sync {
    /// `None` while it runs.
    fn poll(&self) -> Option<Result<Timing>>;
    /// Waits for at most `timeout`.
    fn wait(&self, timeout: Duration) -> Option<Result<Timing>>;
}

impl Submission {
    /// `None` while it runs, then how it ended.
    pub fn poll(&self) -> Option<Result<Timing>> {
        self.state.poll()
    }

    /// Waits until it is done.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] when it is not done after `timeout`; otherwise how it failed.
    pub fn wait(&self, timeout: Duration) -> Result<Timing> {
        self.state.wait(timeout).unwrap_or_else(|| {
            Err(DeviceError::Timeout { what: "a submission".into(), millis: timeout.as_millis() as u64 })
        })
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Submission({:?})", self.poll())
    }
}

impl Dispatch {
    /// The buffers of this launch that workgroups write.
    pub fn written(&self) -> impl Iterator<Item = &Buffer> {
        self.bindings.iter().filter(|b| b.writes()).map(|b| b.slice.buffer())
    }
}
