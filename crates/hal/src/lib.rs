//! One contract for every device Bessemer runs on: memory, kernels, queues, events.
//!
//! The vocabulary is Metal's, because Metal is the target; Vulkan and the CPU have an equivalent for each word.
//! Everything above this crate works on `Arc<dyn Device>` and on the handles below, and knows no graphics API.
//!
//! Design choices:
//!
//! - The cut is made at the *device*, not at the operation. A device knows memory and launches; it does not know
//!   what a matrix product is. A new kernel touches no trait of this crate.
//! - Work is *recorded*, then *submitted*. An [`Encoder`] turns commands into a [`CommandBuffer`]; a
//!   [`CommandBuffer`] may be submitted any number of times where [`Limits::resubmit`] says so.
//! - *Submission order* on one queue is a promise: a submission starts after the one before it has finished.
//!   Between queues, and towards the host, the only order is an [`Event`], a monotonic `u64`.
//! - *Barriers are explicit*. Inside a command buffer, commands without a [`Encoder::barrier`] between them may run
//!   at the same time or in any order. The CPU device checks the rule while recording and refuses a buffer that
//!   breaks it, so that it is the validation layer of everything recorded above it.
//! - *Errors are values*. A failed submission is a state of that submission ([`Submission::wait`]) and a poisoned
//!   event; nothing aborts in a callback. Only a broken contract panics, through `contract_broken`.
//! - Read-back goes through *completed* work: [`Device::read`] refuses bytes that a pending submission writes.
//!
//! Life of a step, in call order: [`Device::create_heap`] and [`Device::create_buffer`] reserve memory;
//! [`Device::create_pipeline`] makes a kernel launchable; [`Device::create_encoder`] → [`Encoder::dispatch`],
//! [`Encoder::copy`], [`Encoder::barrier`] → [`Encoder::finish`] gives a command buffer;
//! [`Device::submit`] hands it to a queue and gives a [`Submission`]; [`Submission::wait`] or an [`Event`] tells
//! that it is done.
//!
//! [`fault`] wraps any device in one that fails by a seeded schedule, for what lies above to be tried with.
//!
//! A [`Pipeline`] is made from [`Code`]: a Rust function for the CPU device, a [`Shader`] for GPUs. Which of the two a
//! device takes is told by [`Limits::gpu`].

mod buffer;
mod command;
pub mod cpu;
mod error;
mod event;
pub mod fault;
#[cfg(any(target_vendor = "apple", test))]
pub mod metal;
mod monitor;
pub mod noop;
mod select;
mod shader;
mod submission;
pub mod vulkan;

pub use buffer::{Buffer, BufferDesc, Heap, HeapDesc, Place, Slice};
pub use command::{
    Access, Binding, CommandBuffer, Dispatch, Encoder, Pipeline, PipelineDesc, Submission, Submit, Tiling,
    Timing, line,
};
pub use error::{DeviceError, Result};
pub use event::Event;
pub use select::{DeviceSelect, OpenOptions, devices, open};
pub use shader::{Code, Requires, Shader};

/// Which queue of a device a submission goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// Runs dispatches and copies.
    Compute,
    /// Runs copies only, beside the compute queue.
    Transfer,
}

/// The API behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Threads of this process.
    Cpu,
    /// A GPU through Vulkan.
    Vulkan,
    /// A GPU through Metal.
    Metal,
    /// Accepts everything and executes nothing: for measuring what lies above.
    Noop,
}

/// What a device is and what it can do; fixed for its life.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The name that its maker gave it.
    pub name: String,
    /// The API behind it.
    pub backend: Backend,
    /// What kernels are selected by.
    pub limits: Limits,
    /// Instruction-set extensions or GPU features in use, for reports.
    pub features: Vec<String>,
}

/// Limits and capabilities that the layers above choose by.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that the system recommends to use at most.
    pub memory_budget: u64,
    /// Largest size of one buffer in bytes.
    pub max_buffer_size: u64,
    /// Alignment in bytes of a buffer inside a heap and of a binding inside a buffer. The CPU demands it of buffers
    /// only; a binding there is aligned for its elements.
    pub alignment: u64,
    /// Host and device see the same memory.
    pub unified_memory: bool,
    /// The host sees all device memory, so that [`Device::write`] stores to it without a copy by the device. Always so
    /// with unified memory; a discrete GPU has it through a resizable BAR, across its bus.
    pub mapped: bool,
    /// A command buffer may be submitted more than once.
    pub resubmit: bool,
    /// Threads that execute a dispatch (CPU) or compute units (GPU; an estimate where the API does not tell).
    pub workers: u32,
    /// What a GPU has; absent on devices that run [`Code::Cpu`].
    pub gpu: Option<GpuLimits>,
}

/// What kernels for a GPU are selected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuLimits {
    /// Threads of the smallest subgroup that a kernel may meet.
    pub min_subgroup: u32,
    /// Threads of the largest.
    pub max_subgroup: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Threads of a workgroup at most.
    pub workgroup_threads: u32,
    /// Workgroups along each axis at most.
    pub max_groups: [u32; 3],
    /// Shaders with [`Requires::cooperative_matrix`] run.
    pub cooperative_matrix: bool,
    /// 8-bit dot products are instructions, not emulated.
    pub int8_dot: bool,
    /// It executes shaders on the CPU: for tests, never chosen by itself.
    pub software: bool,
}

/// A device: memory, pipelines, recording, queues. Object safe; shared as `Arc<dyn Device>`.
pub trait Device: Send + Sync + std::fmt::Debug {
    /// What this device is.
    fn info(&self) -> &DeviceInfo;

    /// Bytes of device memory that live heaps and own buffers hold now; with staging, where that is the same memory.
    fn allocated(&self) -> u64;

    /// Reserves `desc.size` bytes in one piece.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when the system or the budget refuses.
    fn create_heap(&self, desc: &HeapDesc<'_>) -> Result<Heap>;

    /// Creates a buffer: in its own allocation, placed in a heap at an offset, or in staging memory. Contents are undefined.
    /// Placed buffers may alias; keeping them apart in time is the caller's work.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], or [`DeviceError::Usage`] for a place outside the heap or off alignment.
    fn create_buffer(&self, desc: &BufferDesc<'_>) -> Result<Buffer>;

    /// Makes a kernel launchable.
    ///
    /// # Errors
    /// [`DeviceError::Pipeline`] when the device cannot build it.
    fn create_pipeline(&self, desc: &PipelineDesc) -> Result<Pipeline>;

    /// Creates an event that stands at `initial`.
    fn create_event(&self, initial: u64) -> Result<Event>;

    /// Starts recording.
    fn create_encoder(&self, label: &str) -> Result<Box<dyn Encoder>>;

    /// Hands a command buffer to a queue. Returns at once, unless a thousand submissions are pending there.
    ///
    /// Submissions of different queues that use the same bytes, one of them writing, are ordered by an event. The CPU
    /// device fails the later one with [`DeviceError::Submission`] when it finds both running.
    ///
    /// # Errors
    /// [`DeviceError::Lost`] when the device runs nothing any more, [`DeviceError::Usage`] for a dispatch on the
    /// transfer queue, a second submission where [`Limits::resubmit`] is false, or bytes that another thread reads or
    /// writes through [`Device::read`] or [`Device::write`] at this moment.
    fn submit(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission>;

    /// Copies `data` into a buffer from the host. No pending submission may use these bytes; the rest of the buffer
    /// may be in use.
    ///
    /// # Errors
    /// [`DeviceError::Usage`] when `data` is not as long as the slice or the bytes are in use.
    fn write(&self, slice: &Slice, data: &[u8]) -> Result<()>;

    /// Copies a buffer's bytes to the host. No pending submission may write these bytes.
    ///
    /// # Errors
    /// As [`Device::write`].
    fn read(&self, slice: &Slice, data: &mut [u8]) -> Result<()>;
}

/// A caller broke the contract of this crate in a way that no value can express.
#[cold]
#[track_caller]
pub(crate) fn contract_broken(rule: &str) -> ! {
    panic!("hal contract broken: {rule}")
}
