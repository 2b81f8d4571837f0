//! The table of all keys.

use std::sync::LazyLock;

use crate::key::{Acts, Key, Place, get, set};
use crate::{Kind, Settings};

/// Where a key lies in [`Settings`].
macro_rules! at {
    ($($field:ident).+) => {
        Place {
            get: |settings: &Settings| get(&settings.$($field).+),
            set: |settings: &mut Settings, value| set(&mut settings.$($field).+, value),
        }
    };
}

const NO_ROLLBACK: &str = "nothing measures while requests run; the self-check of `auto` has its own 0.95";
const NO_ROLLOUT: &str = "every step goes by the same settings";
const NO_ACCELERATION: &str = "the kernels for a device are chosen by shape, and the KV cache by kv_dtype";

impl Key {
    fn new(path: &'static str, kind: Kind, place: Place, about: &'static str) -> Self {
        let acts = if path.starts_with("metal_optimizations.") { Acts::AtOnce } else { Acts::AtStart };
        Self { path, aliases: &[], kind, absent: None, about, acts, flag: None, place }
    }

    fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    fn or(self, absent: &'static str) -> Self {
        Self { absent: Some(absent), ..self }
    }

    fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    fn at_once(self) -> Self {
        Self { acts: Acts::AtOnce, ..self }
    }

    fn not_yet(self, why: &'static str) -> Self {
        Self { acts: Acts::NotYet(why), ..self }
    }
}

/// All keys, in the order in which a file has them. Those of a section stand together.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let mut keys = program();
        keys.extend(optimizations());
        keys.extend(acceleration());
        keys
    });
    &KEYS
}

/// The place of a path in [`keys`].
pub(crate) fn index(path: &str) -> Option<usize> {
    keys().iter().position(|key| key.path == path)
}

fn program() -> Vec<Key> {
    use Kind::{Bytes, Device, Flag, Name, Preset, Secret, Text, Texts, Whole};
    vec![
        Key::new("preset", Preset, at!(preset), "settings under one name, which all others go before")
            .or("none")
            .flag("--preset")
            .at_once(),
        Key::new(
            "model",
            Text,
            at!(model.model),
            "embedded model, folder, Hugging Face id or synth:SHAPE[:FORMAT]",
        )
        .flag("--model"),
        Key::new("revision", Text, at!(model.revision), "branch, tag or commit of a Hugging Face id")
            .or("the main branch")
            .flag("--revision"),
        Key::new("offline", Flag, at!(model.offline), "never download: use what is on this machine")
            .flag("--offline"),
        Key::new(
            "synth_seed",
            Whole(0..=u64::MAX),
            at!(model.synth_seed),
            "seed of the weights of synth: models",
        )
        .flag("--synth-seed"),
        Key::new("device", Device, at!(engine.device), "which device runs the model").flag("--device"),
        Key::new(
            "validation",
            Flag,
            at!(engine.validation),
            "check every call on the device: slow, for finding faults",
        )
        .flag("--validation"),
        Key::new("threads", Whole(1..=1024), at!(engine.threads), "threads of the CPU device")
            .or("one per core")
            .flag("--threads"),
        Key::new(
            "activations",
            Name(&["auto", "f32", "int8"]),
            at!(engine.activations),
            "arithmetic of the activations in products with quantised weights",
        )
        .flag("--activations"),
        Key::new(
            "kv_dtype",
            Name(&["auto", "f32", "f16"]),
            at!(engine.kv_dtype),
            "number type of the KV cache",
        )
        .flag("--kv-dtype"),
        Key::new(
            "exact",
            Flag,
            at!(engine.exact),
            "as the reference computes: f32 activations and an f32 KV cache",
        )
        .flag("--exact"),
        Key::new(
            "context",
            Whole(2..=u32::MAX as u64),
            at!(engine.context),
            "tokens that one request may have, prompt and output together, if the model allows more",
        )
        .or("the model's")
        .flag("--context"),
        Key::new("kv_memory", Bytes(1..=u64::MAX), at!(engine.kv_memory), "memory for the KV cache")
            .or("by max_sequences and context, at most half of what is free")
            .flag("--kv-memory"),
        Key::new("max_sequences", Whole(1..=256), at!(engine.max_sequences), "sequences that run at once")
            .flag("--max-sequences"),
        Key::new(
            "max_batch_tokens",
            Whole(1..=65_536),
            at!(engine.max_batch_tokens),
            "rows of a step that prompts may fill",
        )
        .flag("--max-batch-tokens"),
        Key::new("host", Text, at!(server.host), "name or address to listen on; 0.0.0.0 is every interface")
            .flag("--host"),
        Key::new("port", Whole(0..=65_535), at!(server.port), "port to listen on; 0 lets the system choose")
            .flag("--port"),
        Key::new(
            "api_key",
            Secret,
            at!(server.api_key),
            "key that clients must send as \"Authorization: Bearer\"",
        )
        .or("everybody is served")
        .flag("--api-key"),
        Key::new("model_name", Text, at!(server.model_name), "name under which the model is shown")
            .or("the name of model")
            .flag("--model-name"),
        Key::new(
            "cors",
            Texts,
            at!(server.cors),
            "web origins that may use the server; \"*\" is all of them",
        )
        .flag("--cors"),
        Key::new(
            "max_queue",
            Whole(0..=65_535),
            at!(server.max_queue),
            "requests that may wait beside the running ones; more are answered with 429",
        )
        .flag("--max-queue"),
        Key::new(
            "drain_timeout",
            Whole(0..=u32::MAX as u64),
            at!(server.drain_timeout),
            "seconds that running requests may go on after the signal to end",
        )
        .flag("--drain-timeout"),
        Key::new("admin.enabled", Flag, at!(admin.enabled), "whether there is a listener for the operator")
            .flag("--admin"),
        Key::new(
            "admin.host",
            Text,
            at!(admin.host),
            "name or address that the operator's listener listens on",
        )
        .flag("--admin-host"),
        Key::new("admin.port", Whole(0..=65_535), at!(admin.port), "its port; 0 lets the system choose")
            .flag("--admin-port"),
        Key::new("admin.token", Secret, at!(admin.token), "token that its clients must send")
            .or("whoever reaches a loopback address may use it")
            .flag("--admin-token"),
    ]
}

fn optimizations() -> Vec<Key> {
    use Kind::{Flag, Name, Number, Switch, Whole, Wholes};
    let mut keys = vec![
        Key::new(
            "metal_optimizations.enabled",
            Switch,
            at!(optimizations.enabled),
            "the switch above all three; auto: on where a self-check has found the same tokens and no loss",
        )
        .flag("--metal-opts"),
        Key::new(
            "metal_optimizations.graceful_fallback",
            Flag,
            at!(optimizations.graceful_fallback),
            "latch off what fails and work the plain way; otherwise its failure is an error of the requests in the step",
        ),
        Key::new(
            "metal_optimizations.log_fallbacks",
            Flag,
            at!(optimizations.log_fallbacks),
            "log each such latch",
        ),
        Key::new(
            "metal_optimizations.fallback_log_level",
            Name(&["error", "warn", "info", "debug"]),
            at!(optimizations.fallback_log_level),
            "at this level",
        ),
        Key::new(
            "metal_optimizations.expose_metrics",
            Flag,
            at!(expose_metrics),
            "tell of pool, queue and ring on /metrics of the operator's listener",
        ),
    ];
    keys.extend(memory_pool());
    keys.extend(blit_queue());
    keys.extend(command_buffer_ring());
    keys.extend([
        Key::new(
            "metal_optimizations.auto_rollback.enabled",
            Flag,
            at!(auto_rollback.enabled),
            "go back to the plain path when the optimisations fall behind it",
        )
        .not_yet(NO_ROLLBACK),
        Key::new(
            "metal_optimizations.auto_rollback.threshold",
            Number(0.0..=1.0),
            at!(auto_rollback.threshold),
            "share of the plain path's throughput below which that is done",
        )
        .not_yet(NO_ROLLBACK),
        Key::new(
            "metal_optimizations.rollout.percent",
            Whole(0..=100),
            at!(rollout.percent),
            "percent of the steps that use the optimisations",
        )
        .not_yet(NO_ROLLOUT),
        Key::new(
            "metal_optimizations.rollout.stages",
            Wholes(1..=100),
            at!(rollout.stages),
            "percents of a staged rollout, each above the one before",
        )
        .not_yet(NO_ROLLOUT),
    ]);
    keys
}

fn memory_pool() -> Vec<Key> {
    use Kind::{Flag, Whole, Wholes};
    vec![
        Key::new(
            "metal_optimizations.memory_pool.enabled",
            Flag,
            at!(optimizations.memory_pool.enabled),
            "transient memory from heaps that are reserved once",
        )
        .flag("--metal-pool"),
        Key::new(
            "metal_optimizations.memory_pool.heap_size_mb",
            Whole(64..=2048),
            at!(optimizations.memory_pool.config.heap_size_mb),
            "MiB of each heap",
        ),
        Key::new(
            "metal_optimizations.memory_pool.num_heaps",
            Whole(2..=16),
            at!(optimizations.memory_pool.config.num_heaps),
            "heaps reserved at most",
        )
        .alias(&["pool_count"]),
        Key::new(
            "metal_optimizations.memory_pool.warmup_buffer_sizes_mb",
            Wholes(1..=1024),
            at!(optimizations.memory_pool.config.warmup_buffer_sizes_mb),
            "MiB of buffers that are placed before the first request; all must fit the heaps at once",
        )
        .alias(&["warmup_sizes"]),
        Key::new(
            "metal_optimizations.memory_pool.track_statistics",
            Flag,
            at!(optimizations.memory_pool.config.track_statistics),
            "count acquisitions, releases and hits",
        ),
        Key::new(
            "metal_optimizations.memory_pool.log_pool_exhaustion",
            Flag,
            at!(optimizations.memory_pool.config.log_pool_exhaustion),
            "log that no heap had room, at most once in ten seconds",
        )
        .alias(&["log_exhaustion"]),
        Key::new(
            "metal_optimizations.memory_pool.max_heap_size_mb",
            Whole(64..=2048),
            at!(optimizations.memory_pool.config.max_heap_size_mb),
            "safety limit of heap_size_mb, and of a heap for a larger request",
        ),
        Key::new(
            "metal_optimizations.memory_pool.min_heaps",
            Whole(2..=16),
            at!(optimizations.memory_pool.config.min_heaps),
            "safety limit of num_heaps",
        ),
    ]
}

fn blit_queue() -> Vec<Key> {
    use Kind::{Flag, Whole};
    vec![
        Key::new(
            "metal_optimizations.blit_queue.enabled",
            Flag,
            at!(optimizations.blit_queue.enabled),
            "transfers beside compute",
        )
        .flag("--blit-queue"),
        Key::new(
            "metal_optimizations.blit_queue.prefetch_enabled",
            Flag,
            at!(optimizations.blit_queue.config.prefetch_enabled),
            "upload the inputs of the next step while a step runs",
        ),
        Key::new(
            "metal_optimizations.blit_queue.async_upload",
            Flag,
            at!(optimizations.blit_queue.config.async_upload),
            "an upload returns when it is submitted, not when it has arrived",
        ),
        Key::new(
            "metal_optimizations.blit_queue.async_download",
            Flag,
            at!(optimizations.blit_queue.config.async_download),
            "the same of downloads",
        ),
        Key::new(
            "metal_optimizations.blit_queue.timeout_ms",
            Whole(100..=30_000),
            at!(optimizations.blit_queue.config.timeout_ms),
            "longest wait for a transfer, in milliseconds",
        ),
        Key::new(
            "metal_optimizations.blit_queue.max_pending_ops",
            Whole(1..=100),
            at!(optimizations.blit_queue.config.max_pending_ops),
            "copies under way at most",
        )
        .alias(&["max_concurrent_ops"]),
        Key::new(
            "metal_optimizations.blit_queue.use_shared_events",
            Flag,
            at!(optimizations.blit_queue.config.use_shared_events),
            "order between queues by events on the device; otherwise the host waits in between",
        ),
        Key::new(
            "metal_optimizations.blit_queue.staging_buffer_size_mb",
            Whole(1..=4096),
            at!(optimizations.blit_queue.config.staging_buffer_size_mb),
            "MiB of the ring through which copies go",
        ),
        Key::new(
            "metal_optimizations.blit_queue.track_timing",
            Flag,
            at!(optimizations.blit_queue.config.track_timing),
            "add up the times of copies and their overlap with compute",
        )
        .alias(&["track_metrics"]),
        Key::new(
            "metal_optimizations.blit_queue.log_slow_operations",
            Flag,
            at!(optimizations.blit_queue.config.log_slow_operations),
            "log copies that took longer than 10 ms",
        ),
        Key::new(
            "metal_optimizations.blit_queue.verbose_logging",
            Flag,
            at!(optimizations.blit_queue.config.verbose_logging),
            "log every transfer at level debug",
        ),
        Key::new(
            "metal_optimizations.blit_queue.verify_checksums",
            Flag,
            at!(optimizations.blit_queue.config.verify_checksums),
            "read back and compare every transfer before it counts",
        ),
        Key::new(
            "metal_optimizations.blit_queue.direct_write_bytes",
            Whole(0..=1 << 30),
            at!(optimizations.blit_queue.config.direct_write_bytes),
            "bytes up to which an upload is a store through the mapping, where a discrete device has one; 0: never",
        ),
    ]
}

fn command_buffer_ring() -> Vec<Key> {
    use Kind::{Flag, Whole, WholeOrZero};
    vec![
        Key::new(
            "metal_optimizations.command_buffer_ring.enabled",
            Flag,
            at!(optimizations.command_buffer_ring.enabled),
            "submissions in flight, recorded once, one step ahead of what the host has read",
        )
        .flag("--cmd-ring"),
        Key::new(
            "metal_optimizations.command_buffer_ring.ring_size",
            Whole(2..=8),
            at!(optimizations.command_buffer_ring.config.ring_size),
            "submissions in flight at most",
        ),
        Key::new(
            "metal_optimizations.command_buffer_ring.wait_on_full_ring",
            Flag,
            at!(optimizations.command_buffer_ring.config.wait_on_full_ring),
            "wait when the ring is full; otherwise a submission goes ahead beyond it",
        ),
        Key::new(
            "metal_optimizations.command_buffer_ring.max_wait_ms",
            WholeOrZero(100..=10_000),
            at!(optimizations.command_buffer_ring.config.max_wait_ms),
            "longest such wait in milliseconds; 0: no limit",
        )
        .alias(&["timeout_ms"]),
        Key::new(
            "metal_optimizations.command_buffer_ring.layers_per_command_buffer",
            Whole(1..=128),
            at!(optimizations.command_buffer_ring.config.layers_per_command_buffer),
            "layers after which a recording that is not kept commits what it has",
        )
        .or("chosen by the device"),
        Key::new(
            "metal_optimizations.command_buffer_ring.track_statistics",
            Flag,
            at!(optimizations.command_buffer_ring.config.track_statistics),
            "count submissions, reuse and waits",
        ),
        Key::new(
            "metal_optimizations.command_buffer_ring.log_ring_exhaustion",
            Flag,
            at!(optimizations.command_buffer_ring.config.log_ring_exhaustion),
            "log that the ring was full",
        )
        .alias(&["log_wait_events"]),
    ]
}

fn acceleration() -> Vec<Key> {
    use Kind::{Flag, Switch};
    let keys = [
        Key::new(
            "metal_acceleration.enabled",
            Switch,
            at!(acceleration.enabled),
            "the switch above the features; auto: those that the device has",
        ),
        Key::new(
            "metal_acceleration.fallback_to_reference",
            Flag,
            at!(acceleration.fallback_to_reference),
            "do in the reference way what fails in the fast one",
        )
        .alias(&["fallback_to_python"]),
        Key::new(
            "metal_acceleration.prefer_reference",
            Flag,
            at!(acceleration.prefer_reference),
            "take the reference way in any case",
        )
        .alias(&["prefer_python"]),
        Key::new(
            "metal_acceleration.features.flash_attention",
            Flag,
            at!(acceleration.flash_attention),
            "attention in tiles",
        ),
        Key::new(
            "metal_acceleration.features.optimized_rope",
            Flag,
            at!(acceleration.optimized_rope),
            "rotary embeddings in one pass with their neighbours",
        ),
        Key::new(
            "metal_acceleration.features.kv_quantization",
            Flag,
            at!(acceleration.kv_quantization),
            "a KV cache of 8-bit numbers",
        ),
    ];
    keys.into_iter().map(|key| key.not_yet(NO_ACCELERATION)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unambiguous_and_sections_stand_together() {
        let mut names = BTreeSet::new();
        let mut variables = BTreeSet::new();
        let mut sections: Vec<&str> = Vec::new();
        for key in keys() {
            assert!(names.insert(key.path.to_owned()), "{}", key.path);
            for alias in key.aliases {
                assert!(names.insert(format!("{}.{alias}", key.section())), "{alias}");
            }
            assert!(variables.insert(key.variable()), "{}", key.variable());
            if sections.last() != Some(&key.section()) {
                let inner = key.section().starts_with("metal_optimizations.");
                assert!(inner || !sections.contains(&key.section()), "{}", key.path);
                sections.push(key.section());
            }
        }
        for section in sections {
            assert!(index(section).is_none(), "{section} is a section and a key");
        }
    }

    #[test]
    fn variables_follow_the_rule() {
        let variable = |path| keys()[index(path).unwrap()].variable();
        assert_eq!(variable("metal_optimizations.enabled"), "METAL_OPTIMIZATIONS_ENABLED");
        assert_eq!(
            variable("metal_optimizations.memory_pool.heap_size_mb"),
            "METAL_OPTIMIZATIONS_MEMORY_POOL_HEAP_SIZE_MB"
        );
        assert_eq!(variable("api_key"), "BESSEMER_API_KEY");
        assert_eq!(variable("admin.token"), "BESSEMER_ADMIN_TOKEN");
    }

    #[test]
    fn every_value_of_the_defaults_is_one_that_its_key_takes() {
        let settings = Settings::default();
        for key in keys() {
            let value = key.value(&settings);
            let mut other = Settings::default();
            assert_eq!((key.place.set)(&mut other, &value), Some(()), "{}", key.path);
            assert_eq!(other, settings, "{}", key.path);
            assert_eq!(key.absent.is_none(), value != crate::Value::Absent, "{}", key.path);
        }
    }
}
