//! Settings under one name.

/// A preset: what stands in a file of its own, so to speak.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// As `--preset` takes it.
    pub name: &'static str,
    /// For whom.
    pub about: &'static str,
    /// Keys and their values, as the environment would spell them.
    settings: &'static [(&'static str, &'static str)],
}

const HEAP: &str = "metal_optimizations.memory_pool.heap_size_mb";
const HEAPS: &str = "metal_optimizations.memory_pool.num_heaps";
const WARMUP: &str = "metal_optimizations.memory_pool.warmup_buffer_sizes_mb";
const OPS: &str = "metal_optimizations.blit_queue.max_pending_ops";
const STAGING: &str = "metal_optimizations.blit_queue.staging_buffer_size_mb";
const VERBOSE: &str = "metal_optimizations.blit_queue.verbose_logging";
const RING: &str = "metal_optimizations.command_buffer_ring.ring_size";
const WAIT: &str = "metal_optimizations.command_buffer_ring.max_wait_ms";

/// All presets.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "realtime",
        about: "few requests, each of which wants its first token soon",
        settings: &[(HEAP, "128"), (HEAPS, "2"), (WARMUP, "32,64"), (OPS, "4"), (RING, "2"), (WAIT, "500")],
    },
    Preset {
        name: "batch",
        about: "many requests at once, where throughput counts",
        settings: &[(HEAP, "512"), (HEAPS, "6"), (OPS, "16"), (STAGING, "128"), (RING, "4")],
    },
    Preset {
        name: "debug",
        about: "small, and every transfer in the log at level debug",
        settings: &[(HEAP, "128"), (HEAPS, "2"), (OPS, "2"), (VERBOSE, "true"), (RING, "2")],
    },
    Preset {
        name: "16gb",
        about: "a machine with 16 GB of memory",
        settings: &[(HEAP, "256"), (HEAPS, "3"), (RING, "2")],
    },
    Preset {
        name: "32gb",
        about: "a machine with 32 GB of memory",
        settings: &[(HEAP, "512"), (HEAPS, "4"), (RING, "3")],
    },
    Preset {
        name: "64gb",
        about: "a machine with 64 GB of memory",
        settings: &[(HEAP, "1024"), (HEAPS, "6"), (RING, "4")],
    },
];

impl Preset {
    /// Keys and their values, as the environment would spell them.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.settings.iter().copied()
    }
}
