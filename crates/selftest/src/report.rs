//! What a run found, as text for the user and as JSON for a report of a fault.

use std::fmt;

use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::{Device, DeviceInfo};
use serde::Serialize;

/// A run of the selftest, under way or finished.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// What was checked.
    pub device: DeviceFacts,
    /// Checks whose names do not contain it were left out.
    pub filter: Option<String>,
    /// Seed of the first round.
    pub seed: u64,
    /// Rounds of each check.
    pub repeat: u32,
    /// The check that runs; in a finished report `None`, so a name that is left tells where the program ended.
    pub running: Option<String>,
    /// What has ended, in order.
    pub checks: Vec<Entry>,
    /// How long all of it took so far.
    pub seconds: f64,
}

/// The machine around the device.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Operating system, release and architecture.
    pub system: String,
    /// The processor's name.
    pub processor: String,
    /// Threads that this process may run at once.
    pub threads: usize,
    /// Bytes of memory that this process may use.
    pub memory: u64,
}

/// What the device says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceFacts {
    /// The name that its maker gave it.
    pub name: String,
    /// `cpu`, `vulkan` or `metal`.
    pub backend: String,
    /// Driver, instruction sets, extensions: as the device lists them.
    pub features: Vec<String>,
    /// Names and values of its limits, the GPU's after the others.
    pub limits: serde_json::Map<String, serde_json::Value>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The device did what it should, in every round.
    Passed,
    /// It did not.
    Failed,
    /// The device cannot run it and need not.
    Skipped,
}

/// One check that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Group, list and check: `kernels/gather/any_shape`.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// How long its rounds took.
    pub seconds: f64,
    /// Rounds that ran, the failed one included.
    pub rounds: u32,
    /// The seed that repeats the last round alone.
    pub seed: u64,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpu = CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: None });
        let system = match nix::sys::utsname::uname() {
            Ok(name) => {
                [name.sysname(), name.release(), name.machine()].map(|part| part.to_string_lossy()).join(" ")
            }
            Err(_) => format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        };
        Self {
            system,
            processor: cpu.info().name.clone(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: cpu.info().limits.memory_budget,
        }
    }
}

impl DeviceFacts {
    pub(crate) fn of(info: &DeviceInfo) -> Self {
        let limits = &info.limits;
        let mut facts = serde_json::Map::new();
        let mut fact = |name: &str, value: serde_json::Value| facts.insert(name.into(), value);
        fact("memory_budget", limits.memory_budget.into());
        fact("max_buffer_size", limits.max_buffer_size.into());
        fact("alignment", limits.alignment.into());
        fact("unified_memory", limits.unified_memory.into());
        fact("resubmit", limits.resubmit.into());
        fact("workers", limits.workers.into());
        if let Some(gpu) = &limits.gpu {
            fact("min_subgroup", gpu.min_subgroup.into());
            fact("max_subgroup", gpu.max_subgroup.into());
            fact("workgroup_memory", gpu.workgroup_memory.into());
            fact("workgroup_threads", gpu.workgroup_threads.into());
            fact("max_groups", gpu.max_groups.to_vec().into());
            fact("cooperative_matrix", gpu.cooperative_matrix.into());
            fact("int8_dot", gpu.int8_dot.into());
            fact("software", gpu.software.into());
        }
        Self {
            name: info.name.clone(),
            backend: format!("{:?}", info.backend).to_lowercase(),
            features: info.features.clone(),
            limits: facts,
        }
    }
}

impl Report {
    /// Checks that ended so.
    pub fn count(&self, ending: Ending) -> usize {
        self.checks.iter().filter(|entry| entry.ending == ending).count()
    }

    /// Nothing failed.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Entry> {
        self.checks.iter().filter(|entry| entry.ending == Ending::Failed)
    }

    /// What is known before the first check: program, machine, device.
    pub fn header(&self) -> String {
        let Self { version, machine, device, .. } = self;
        let mut text = format!(
            "bessemer {version} selftest\n{}\n{}, {} threads, {} MiB\n{} device: {}\n",
            machine.system,
            machine.processor,
            machine.threads,
            machine.memory >> 20,
            device.backend,
            device.name
        );
        for feature in &device.features {
            text.push_str(&format!("  {feature}\n"));
        }
        for (name, value) in &device.limits {
            text.push_str(&format!("  {name:<20} {value}\n"));
        }
        text
    }

    /// The failures with all that is known of them, and one line for everything.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for entry in self.failures() {
            let message = entry.message.as_deref().unwrap_or_default().replace('\n', "\n  ");
            text.push_str(&format!(
                "\nFAILED {}\n  {message}\n  again: --filter {} --seed {}\n",
                entry.name, entry.name, entry.seed
            ));
        }
        text.push_str(&format!(
            "\n{} passed, {} failed, {} skipped in {:.1} s on {} (seed {}, {} round{})\n",
            self.count(Ending::Passed),
            self.count(Ending::Failed),
            self.count(Ending::Skipped),
            self.seconds,
            self.device.name,
            self.seed,
            self.repeat,
            if self.repeat == 1 { "" } else { "s" }
        ));
        text
    }
}

/// One line: how it ended and how long it took; for a skipped one, why.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ending, &self.message) {
            (Ending::Passed, _) => write!(f, "ok       {:8.3} s", self.seconds),
            (Ending::Failed, _) => write!(f, "FAILED   {:8.3} s", self.seconds),
            (Ending::Skipped, message) => write!(f, "skipped: {}", message.as_deref().unwrap_or_default()),
        }
    }
}
