//! The keys of memory pool, transfer queue and command ring.

use crate::key::{Key, Place, get, set};
use crate::{Kind, Settings};

pub(super) fn memory_pool() -> Vec<Key> {
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

pub(super) fn blit_queue() -> Vec<Key> {
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

pub(super) fn command_buffer_ring() -> Vec<Key> {
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
