//! The machine that a measurement was made on.

use serde::Serialize;

/// Facts of the machine.
#[derive(Debug, Serialize)]
pub struct Host {
    /// The processor's name.
    cpu: String,
    /// Its instruction-set extensions that kernels use.
    features: Vec<String>,
    /// Threads that this process may run at once.
    threads: usize,
    /// Bytes of memory that this process may use.
    memory: u64,
    /// Operating system, release and architecture.
    pub system: String,
}

impl Host {
    /// Looks around.
    pub fn look() -> Self {
        let cpu = bessemer_hal::cpu::CpuDevice::new(&bessemer_hal::cpu::CpuOptions {
            threads: Some(1),
            ..Default::default()
        });
        let info = bessemer_hal::Device::info(&*cpu);
        Self {
            cpu: info.name.clone(),
            features: info.features.clone(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: info.limits.memory_budget,
            system: system(),
        }
    }
}

fn system() -> String {
    match nix::sys::utsname::uname() {
        Ok(name) => [name.sysname(), name.release(), name.machine()].map(|s| s.to_string_lossy()).join(" "),
        Err(_) => format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

/// The largest resident memory of this process so far, in MiB.
///
/// Linux: `VmHWM`, since `getrusage` there starts with the peak of the program that started this one.
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    vm_hwm(&status).map(|kib| kib as f64 / 1024.0).or_else(|| {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
        // Bytes on Apple's systems, KiB elsewhere.
        let unit = if cfg!(target_vendor = "apple") { 1024.0 * 1024.0 } else { 1024.0 };
        Some(usage.max_rss() as f64 / unit)
    })
}

fn vm_hwm(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status() {
        assert_eq!(vm_hwm("VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2048));
        assert_eq!(vm_hwm("VmPeak: 9 kB"), None);
        assert!(peak_memory_mib().is_some_and(|peak| peak > 1.0));
    }

    #[test]
    fn the_host_is_known() {
        let host = Host::look();
        assert!(!host.cpu.is_empty() && host.threads > 0 && host.system.contains(' '));
    }
}
