//! What every object of a device holds on to: the GPU, its queues, and what is under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use objc2::rc::autoreleasepool;
use objc2_metal::{MTLDevice, MTLResourceOptions};

use super::archive::Archive;
use super::buffer::{Filler, Layout, MetalBuffer};
use super::capture::Capture;
use super::device::MetalOptions;
use super::encode;
use super::event::Pump;
use super::family::Facts;
use super::ledger::{Gpu, LANES, Ledger, Work};
use super::memory::Meter;
use super::native::RawDevice;
use super::pipeline::{self, MetalPipeline};
use super::plan::{Footprint, PartLimits, Plan};
use super::queue::Queue;
use super::residency::Residency;
use crate::{DeviceError, QueueKind, Result};

/// Lane of the compute queue.
pub(crate) const COMPUTE: usize = 0;
/// Lane of the transfer queue.
pub(crate) const TRANSFER: usize = 1;
/// The queue for the copies of reads and writes; no lane, because these are waited for where they are made.
pub(crate) const COPIES: usize = 2;

/// Bytes of the buffer that is bound where a slice is empty.
const FILLER: usize = 256;
const FILLER_OPTIONS: MTLResourceOptions = MTLResourceOptions::from_bits_retain(
    MTLResourceOptions::StorageModePrivate.bits() | MTLResourceOptions::HazardTrackingModeUntracked.bits(),
);

pub(crate) type MetalPlan = Plan<Arc<MetalPipeline>, Arc<MetalBuffer>>;

/// The GPU. Held by everything made of it, and released with the last.
pub(crate) struct Core {
    /// Tells the device's objects from those of other devices.
    pub(crate) id: u64,
    pub(crate) device: RawDevice,
    pub(crate) facts: Facts,
    pub(crate) layout: Layout,
    pub(crate) parts: PartLimits,
    pub(crate) queues: [Queue; 3],
    pub(crate) meter: Arc<Meter>,
    pub(crate) residency: Option<Arc<Residency>>,
    pub(crate) ledger: Ledger<MetalPlan>,
    pub(crate) pipelines: Mutex<HashMap<&'static str, Arc<MetalPipeline>>>,
    pub(crate) archive: Option<Arc<Archive>>,
    pub(crate) capture: Option<Capture>,
    pub(crate) filler: Filler,
    /// Copies what blits cannot; made when the device is opened.
    pub(crate) copy_bytes: OnceLock<Arc<MetalPipeline>>,
    me: Weak<Self>,
}

impl Core {
    pub(crate) fn new(device: RawDevice, facts: Facts, options: &MetalOptions) -> Result<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        autoreleasepool(|_| {
            // Heaps that the host sees are of Apple's own GPUs.
            let private = options.private_memory || !facts.unified || facts.apple.is_none();
            let queues = [
                Queue::new(&device, "compute")?,
                Queue::new(&device, "transfer")?,
                Queue::new(&device, "copies")?,
            ];
            let budget = facts.budget().min(options.memory_budget.unwrap_or(u64::MAX));
            let residency =
                Residency::new(&device, [&queues[0].raw, &queues[1].raw, &queues[2].raw], facts.budget());
            let filler = device
                .newBufferWithLength_options(FILLER, FILLER_OPTIONS)
                .ok_or_else(|| DeviceError::Unavailable("Metal gives no memory at all".into()))?;
            let core = Arc::new_cyclic(|me| Self {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                layout: Layout::new(&device, private, page_size()),
                parts: PartLimits { commands: options.commands_per_buffer, bytes: options.bytes_per_buffer },
                meter: Meter::new(budget),
                residency: residency.map(Arc::new),
                ledger: Ledger::default(),
                pipelines: Mutex::default(),
                archive: options.pipeline_cache.as_ref().map(|path| Arc::new(Archive::open(&device, path))),
                capture: Capture::new(options),
                filler: Filler(filler),
                copy_bytes: OnceLock::new(),
                me: me.clone(),
                queues,
                facts,
                device,
            });
            // Also the proof that the system's compiler works.
            let copy_bytes = pipeline::build(&core, &pipeline::COPY_BYTES)
                .map_err(|error| DeviceError::Unavailable(format!("Metal compiles no kernel: {error}")))?;
            core.copy_bytes.get_or_init(|| copy_bytes);
            Ok(core)
        })
    }

    /// What events move on.
    pub(crate) fn pump_handle(&self) -> Weak<dyn Pump> {
        self.me.clone()
    }

    /// Itself, for those that outlive the call.
    pub(crate) fn hold(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }
}

impl Pump for Core {
    fn pump(&self) {
        self.ledger.pump(self);
    }
}

impl Gpu<MetalPlan> for Core {
    fn hand_over(
        &self,
        lane: usize,
        work: &Arc<MetalPlan>,
        first_tick: u64,
        after: [u64; LANES],
    ) -> Result<(), (u64, DeviceError)> {
        encode::hand_over(self, lane, work, first_tick, after)
    }

    fn raise(&self, lane: usize, tick: u64) {
        self.queues[lane].raise(tick);
    }
}

impl Work for MetalPlan {
    fn label(&self) -> &str {
        &self.label
    }

    fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    fn ticks(&self) -> u64 {
        self.parts.len() as u64
    }
}

pub(crate) fn lane(queue: QueueKind) -> usize {
    match queue {
        QueueKind::Compute => COMPUTE,
        QueueKind::Transfer => TRANSFER,
    }
}

/// Bytes of a page of the host.
pub(crate) fn page_size() -> u64 {
    objc2_foundation::NSPageSize() as u64
}
