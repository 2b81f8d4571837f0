//! A soak: requests by many owners at once for as long as one likes, each compared with what it must give.
//!
//! - *Every answer is known.* The requests of a run are a few different ones, made from its seed; what each gives is computed
//!   alone, on the plain path, with nothing failing, before the run begins.
//! - *Everything may happen meanwhile*: the device fails by a seeded schedule ([`FaultDevice`]), the optimisations change
//!   ([`Soak::switches`]), owners cancel their requests and go away.
//! - *The rules* are those of the engine: one end for every request; right tokens, or right tokens up to a typed error of the
//!   device where faults are injected; nothing held in the end; no more memory at the end than at the beginning; and a server
//!   that serves on.
//! - *Nothing waits for ever.* When no token and no end has come for [`Soak::patience`], the run is over and says so.
//!
//! With faults, transfers are verified by checksum, since nothing else tells a damaged one from a good one.
//! `docs/soak.md` has the command and what it found.
//!
//! Known gap: resident memory is read from `/proc`, so it is unknown on Apple's systems.

mod client;
mod disturbance;
mod mix;
mod report;
mod run;
mod samples;
mod tally;

pub use report::{Progress, Remains, SoakReport};
pub use samples::{Drift, Plateau, Sample};
pub use tally::Tally;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bessemer_engine::{EngineError, EngineOptions, Master, Optimizations};
use bessemer_hal::Device;
use bessemer_hal::fault::{FaultDevice, FaultPlan};
use serde::Serialize;

/// How long a soak takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Requests begin for so long.
    Time(Duration),
    /// So many requests.
    Requests(u64),
}

/// What is done, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Soak {
    /// When it is over.
    pub length: Length,
    /// Owners that ask one request after the other.
    pub concurrency: usize,
    /// Different requests.
    pub distinct: usize,
    /// Tokens of the longest prompt.
    pub max_prompt: usize,
    /// Tokens that a request gives at most.
    pub max_tokens: usize,
    /// Seed of the requests, of what their owners do, of the faults and of the switches.
    pub seed: u64,
    /// Share of the calls of the device that fail, for each kind of fault that a call can meet; absent: nothing fails.
    pub fault_rate: Option<f64>,
    /// Whether bytes go through staging where host and device share memory, as they do with a card of its own.
    pub staging: bool,
    /// Whether the optimisations change during the run.
    pub switches: bool,
    /// How long there may be neither a token nor an end.
    pub patience: Duration,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            length: Length::Requests(100),
            concurrency: 10,
            distinct: 24,
            max_prompt: 64,
            max_tokens: 24,
            seed: 0,
            fault_rate: None,
            staging: false,
            switches: false,
            patience: Duration::from_secs(300),
        }
    }
}

/// Rows of a step on a GPU: more take other kernels, whose last bits differ, and which rows share a step depends on time.
const GPU_ROWS: usize = 16;
/// Longest waits of the optimisations while faults are injected, in milliseconds, and the delay that exceeds them.
const WAIT_MS: u64 = 100;
const TIMEOUT: Duration = Duration::from_millis(WAIT_MS + 20);
const DELAY: Duration = Duration::from_millis(5);

impl Soak {
    /// Loads the model on `device`, and soaks it. `stop` ends the run early; `told` hears of each look at it.
    ///
    /// # Errors
    /// When the model cannot be loaded, or fails before anything is made to fail.
    pub fn run(
        &self,
        device: Arc<dyn Device>,
        options: EngineOptions,
        stop: &AtomicBool,
        told: &mut dyn FnMut(&Progress),
    ) -> Result<SoakReport, EngineError> {
        run::run(self, device, options, stop, told)
    }

    /// The options of the engine for this run.
    fn prepare(&self, mut options: EngineOptions, device: &dyn Device) -> EngineOptions {
        // It watches what is on, and a check would come between.
        if options.optimizations.enabled == Master::Auto {
            options.optimizations.enabled = Master::On;
        }
        options.max_sequences = options.max_sequences.min(self.concurrency.max(1));
        options.max_queue = options.max_queue.max(self.concurrency.max(self.distinct));
        if device.info().limits.gpu.is_some() {
            options.max_batch_tokens = options.max_batch_tokens.min(GPU_ROWS);
            options.max_sequences = options.max_sequences.min(GPU_ROWS);
        }
        options
    }

    /// The optimisations while it runs.
    fn settings(&self, wanted: &Optimizations) -> Optimizations {
        let mut settings = wanted.clone();
        if self.fault_rate.is_some() {
            prepare_for_faults(&mut settings);
        }
        settings
    }

    /// What is to fail, if anything is.
    fn plan(&self) -> Option<FaultPlan> {
        let plan = |rate| FaultPlan::everything(self.seed, rate).with_delay(DELAY).with_timeout(TIMEOUT);
        self.fault_rate.map(plan)
    }
}

/// Damage must be told from data, and waits must run out of time before the faults that delay them are over.
fn prepare_for_faults(settings: &mut Optimizations) {
    settings.log_fallbacks = false;
    settings.memory_pool.config.log_pool_exhaustion = false;
    let queue = &mut settings.blit_queue.config;
    (queue.verify_checksums, queue.log_slow_operations) = (true, false);
    queue.timeout_ms = WAIT_MS;
    let ring = &mut settings.command_buffer_ring.config;
    (ring.max_wait_ms, ring.log_ring_exhaustion) = (WAIT_MS, false);
}

/// The device of a run: as it is, or one around it that can be made to fail.
#[derive(Clone)]
enum Subject {
    Plain(Arc<dyn Device>),
    Faulty(Arc<FaultDevice>),
}

impl Subject {
    fn new(soak: &Soak, device: Arc<dyn Device>) -> Self {
        match soak.fault_rate {
            _ if soak.staging => Self::Faulty(FaultDevice::with_own_memory(device)),
            Some(_) => Self::Faulty(FaultDevice::new(device)),
            None => Self::Plain(device),
        }
    }

    fn device(&self) -> Arc<dyn Device> {
        match self {
            Self::Plain(device) => device.clone(),
            Self::Faulty(device) => device.clone(),
        }
    }

    fn fault(&self) -> Option<&FaultDevice> {
        match self {
            Self::Plain(_) => None,
            Self::Faulty(device) => Some(device),
        }
    }
}
