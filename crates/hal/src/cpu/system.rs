//! What the system says about its processor and its memory.
#![allow(unsafe_code)]

/// Name of the processor, as its maker gave it.
pub(crate) fn processor() -> String {
    named_processor().unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

#[cfg(not(target_os = "macos"))]
fn named_processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_os = "macos")]
fn named_processor() -> Option<String> {
    let mut text = [0_u8; 256];
    let len = sysctl(c"machdep.cpu.brand_string", &mut text)?;
    let text = text.get(..len)?.split(|&b| b == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Bytes that this process may use: physical memory, or its control group's limit where that is lower.
#[cfg(not(target_os = "macos"))]
pub(crate) fn memory() -> u64 {
    // SAFETY: `sysconf` reads two numbers.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let physical = u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(size).unwrap_or(0));
    let physical = if physical == 0 { u64::MAX } else { physical };
    // The word `max` stands for no limit.
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|s| s.trim().parse().ok());
    physical.min(limit.unwrap_or(u64::MAX))
}

/// Bytes of physical memory.
#[cfg(target_os = "macos")]
pub(crate) fn memory() -> u64 {
    let mut bytes = [0_u8; 8];
    match sysctl(c"hw.memsize", &mut bytes) {
        Some(8) => u64::from_ne_bytes(bytes),
        _ => u64::MAX,
    }
}

#[cfg(target_os = "macos")]
fn sysctl(name: &std::ffi::CStr, out: &mut [u8]) -> Option<usize> {
    let mut len = out.len();
    // SAFETY: `name` ends in a zero byte, and the call writes at most `len` bytes to `out`.
    let rc = unsafe {
        libc::sysctlbyname(name.as_ptr(), out.as_mut_ptr().cast(), &raw mut len, std::ptr::null_mut(), 0)
    };
    (rc == 0).then_some(len)
}

/// Instruction-set extensions that kernels choose by.
pub(crate) fn features() -> Vec<String> {
    detected().iter().filter(|(_, has)| *has).map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn detected() -> Vec<(&'static str, bool)> {
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![
        ("neon", has!("neon")),
        ("dotprod", has!("dotprod")),
        ("fp16", has!("fp16")),
        ("bf16", has!("bf16")),
        ("i8mm", has!("i8mm")),
        ("sve", has!("sve")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn detected() -> Vec<(&'static str, bool)> {
    vec![]
}
