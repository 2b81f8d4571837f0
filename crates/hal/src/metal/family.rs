//! What a GPU is, from what the system says of it: families, limits, compute units.

/// What the system says of a GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// As its maker named it.
    pub(crate) name: String,
    /// The newest Apple family it is of, 7 for the M1; `None` for GPUs of other makers.
    pub(crate) apple: Option<u32>,
    /// It has the features called Metal 3.
    pub(crate) metal3: bool,
    /// It has the features called Metal 4.
    pub(crate) metal4: bool,
    /// Host and GPU share one memory.
    pub(crate) unified: bool,
    /// Major and minor version of macOS.
    pub(crate) system: (isize, isize),
    /// Bytes that the system recommends to use at most.
    pub(crate) working_set: u64,
    /// Compute units from the system's registry.
    pub(crate) cores: Option<u32>,
}

/// Kernels are written in version 3.1 of the language, which came with this version of macOS.
pub(crate) const OLDEST_SYSTEM: isize = 14;
/// The first Apple family with simdgroup matrices, SIMD reductions, and `f16` at full rate: the A14 and the M1.
pub(crate) const OLDEST_APPLE: u32 = 7;

impl Facts {
    /// Why kernels cannot run on it.
    pub(crate) fn unusable(&self) -> Option<String> {
        let (major, minor) = self.system;
        if major < OLDEST_SYSTEM {
            return Some(format!(
                "macOS {major}.{minor} is too old: kernels are in Metal's language 3.1; update to macOS {OLDEST_SYSTEM}"
            ));
        }
        match self.apple {
            Some(family) if family < OLDEST_APPLE => {
                Some(format!("its family is Apple {family}; Apple {OLDEST_APPLE} (M1) is needed"))
            }
            None if !self.metal3 => Some("it has neither an Apple family nor Metal 3".into()),
            _ => None,
        }
    }

    /// Matrices of 8 × 8 in registers of a simdgroup.
    pub(crate) fn simdgroup_matrix(&self) -> bool {
        self.apple.is_some_and(|family| family >= OLDEST_APPLE)
    }

    /// Compute units: from the registry, else as published for the name, else what a middling GPU has.
    pub(crate) fn compute_units(&self) -> u32 {
        self.cores.filter(|&n| n > 0).or_else(|| published_cores(&self.name)).unwrap_or(8)
    }

    /// Bytes that heaps and buffers may take by default: what the system recommends, less a reserve for the display and
    /// for other programs.
    pub(crate) fn budget(&self) -> u64 {
        self.working_set - reserve(self.working_set)
    }

    /// What it is, for reports.
    pub(crate) fn features(&self) -> Vec<String> {
        let (major, minor) = self.system;
        let mut all = vec![format!("macOS {major}.{minor}"), "Metal language 3.1".to_owned()];
        all.extend(self.apple.map(|family| format!("Apple family {family}")));
        for (has, name) in [
            (self.metal4, "Metal 4"),
            (self.metal3 && !self.metal4, "Metal 3"),
            (self.unified, "unified memory"),
            (self.simdgroup_matrix(), "simdgroup matrices"),
        ] {
            if has {
                all.push(name.to_owned());
            }
        }
        all.push(format!("{} MiB recommended", self.working_set >> 20));
        all
    }
}

/// What is left to others of a working set: a sixteenth, from 256 MiB to 2 GiB, and never more than half.
fn reserve(working_set: u64) -> u64 {
    (working_set / 16).clamp(256 << 20, 2 << 30).min(working_set / 2)
}

/// GPU cores of the largest variant sold under a name. Estimates for the case that the registry does not tell.
fn published_cores(name: &str) -> Option<u32> {
    let chip = name.strip_prefix("Apple M")?;
    let (generation, grade) = chip.split_once(' ').unwrap_or((chip, ""));
    let cores = match (generation, grade) {
        ("1", "") => 8,
        ("1", "Pro") => 16,
        ("1", "Max") => 32,
        ("1", "Ultra") => 64,
        ("2", "") => 10,
        ("2", "Pro") => 19,
        ("2", "Max") => 38,
        ("2", "Ultra") => 76,
        ("3", "Pro") => 18,
        ("3", "Ultra") => 80,
        (_, "") => 10,
        (_, "Pro") => 20,
        (_, "Max") => 40,
        (_, "Ultra") => 80,
        _ => return None,
    };
    Some(cores)
}

/// Start and end of GPU work, in seconds as the system tells them, as nanoseconds. The system tells zero for work that
/// never reached the GPU: that lies at `floor_ns`, the end of what came before it.
pub(crate) fn nanoseconds(start: f64, end: f64, floor_ns: u64) -> (u64, u64) {
    let ns = |seconds: f64| if seconds > 0.0 { (seconds * 1e9) as u64 } else { floor_ns };
    let start = ns(start);
    (start, ns(end).max(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(apple: Option<u32>, metal3: bool, major: isize) -> Facts {
        Facts { apple, metal3, system: (major, 1), working_set: 48 << 30, ..Facts::default() }
    }

    #[test]
    fn a_gpu_is_refused_with_the_reason() {
        assert_eq!(facts(Some(7), true, 14).unusable(), None);
        assert_eq!(facts(Some(10), true, 26).unusable(), None);
        assert_eq!(facts(None, true, 15).unusable(), None);
        for (facts, reason) in [
            (facts(Some(7), true, 13), "macOS 13.1"),
            (facts(Some(6), true, 14), "Apple 6"),
            (facts(None, false, 14), "Metal 3"),
        ] {
            assert!(facts.unusable().is_some_and(|text| text.contains(reason)), "{reason}");
        }
    }

    #[test]
    fn matrices_need_a_new_enough_apple_family() {
        assert!(facts(Some(7), true, 14).simdgroup_matrix());
        assert!(!facts(Some(6), true, 14).simdgroup_matrix());
        assert!(!facts(None, true, 14).simdgroup_matrix());
    }

    #[test]
    fn compute_units_come_from_the_registry_first() {
        let named =
            |name: &str, cores| Facts { name: name.into(), cores, ..Facts::default() }.compute_units();
        assert_eq!(named("Apple M2 Ultra", Some(60)), 60);
        assert_eq!(named("Apple M2 Ultra", None), 76);
        assert_eq!(named("Apple M1", Some(0)), 8);
        assert_eq!(named("Apple M4 Max", None), 40);
        assert_eq!(named("Apple M9", None), 10);
        assert_eq!(named("AMD Radeon Pro 5500M", None), 8);
    }

    #[test]
    fn the_budget_leaves_a_reserve() {
        let budget = |working_set| Facts { working_set, ..Facts::default() }.budget();
        assert_eq!(budget(0), 0);
        assert_eq!(budget(256 << 20), 128 << 20);
        assert_eq!(budget(1 << 30), 768 << 20);
        assert_eq!(budget(16 << 30), 15 << 30);
        assert_eq!(budget(96 << 30), 94 << 30);
    }

    #[test]
    fn times_never_run_backwards() {
        assert_eq!(nanoseconds(2.0, 2.5, 7), (2_000_000_000, 2_500_000_000));
        assert_eq!(nanoseconds(0.0, 0.0, 7), (7, 7));
        assert_eq!(nanoseconds(2.0, 0.0, 7), (2_000_000_000, 2_000_000_000));
        assert_eq!(nanoseconds(3.0, 2.0, 7), (3_000_000_000, 3_000_000_000));
    }

    #[test]
    fn features_tell_what_it_is() {
        let all = Facts { metal4: true, unified: true, ..facts(Some(9), true, 15) }.features().join(", ");
        for part in ["macOS 15.1", "Apple family 9", "Metal 4", "unified", "simdgroup matrices", "49152 MiB"]
        {
            assert!(all.contains(part), "{part} is missing in {all}");
        }
        assert!(!all.contains("Metal 3,"), "{all}");
    }
}
