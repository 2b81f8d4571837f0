//! Configuration files that `bessemer serve` refuses.

use crate::document::{Row, Section};
use crate::folder::Folder;
use crate::program;

/// Lines of a file; `⏎` ends a line in the table.
const FILES: &[&str] = &[
    "port: 99999",
    "port: \"8080\"",
    "prot: 8080",
    "port: 8080⏎port: 8081",
    "model: ~",
    "device: cuda",
    "kv_memory: 8 apples",
    "max_sequences: 0",
    "cors: https://chat.example.org",
    "preset: real-time",
    "exact: true⏎activations: int8",
    "admin:⏎  host: 0.0.0.0",
    "port: 9464",
    "metal_optimizations: true",
    "metal_optimizations:⏎  enabled: on",
    "metal_optimizations:⏎  heap_size_mb: 512",
    "metal_optimizations:⏎  memory_pol:⏎    num_heaps: 4",
    "metal_optimizations:⏎  memory_pool:⏎    heap_size_mb: 32",
    "metal_optimizations:⏎  memory_pool:⏎    heap_size_mb: 256.5",
    "metal_optimizations:⏎  memory_pool:⏎    num_heaps: 4⏎    pool_count: 4",
    "metal_optimizations:⏎  memory_pool:⏎    max_heap_size_mb: 128",
    "metal_optimizations:⏎  memory_pool:⏎    num_heaps: 2⏎    min_heaps: 3",
    "metal_optimizations:⏎  memory_pool:⏎    warmup_buffer_sizes_mb: [32, 128, 512]",
    "metal_optimizations:⏎  memory_pool:⏎    warmup_buffer_sizes_mb: [256, 256, 256, 256, 256]",
    "metal_optimizations:⏎  memory_pool:⏎    warmup_sizes: 32",
    "metal_optimizations:⏎  blit_queue:⏎    timeout_ms: 5",
    "metal_optimizations:⏎  blit_queue:⏎    max_pending_ops: 101",
    "metal_optimizations:⏎  command_buffer_ring:⏎    ring_size: 9",
    "metal_optimizations:⏎  command_buffer_ring:⏎    max_wait_ms: 50",
    "metal_optimizations:⏎  command_buffer_ring:⏎    layers_per_command_buffer: 0",
    "metal_optimizations:⏎  fallback_log_level: warning",
    "metal_optimizations:⏎  auto_rollback:⏎    threshold: 95",
    "metal_optimizations:⏎  rollout:⏎    stages: [50, 10]",
    "metal_acceleration:⏎  features:⏎    flash_atention: true",
    "port: 80: 81",
    "port: *port",
    "- port: 8080",
];

/// Variables of the environment.
const VARIABLES: &[(&str, &str)] = &[
    ("METAL_OPTIMIZATIONS_ENABLED", "maybe"),
    ("METAL_OPTIMIZATIONS_MEMORY_POOL_HEAPS", "4"),
    ("METAL_OPTIMIZATIONS_BLIT_QUEUE_TIMEOUT_MS", "5s"),
    ("BESSEMER_MAX_QUEUE", "many"),
    ("BESSEMER_PORT", "tcp://10.0.0.1:8080"),
    ("BESSEMER_CONFIG", "nowhere.yaml"),
];

/// Runs every case.
pub fn section() -> Section {
    let folder = Folder::plain();
    let mut rows = Vec::new();
    for file in FILES {
        std::fs::write(folder.root().join("runtime.yaml"), file.replace('⏎', "\n"))
            .expect("a file can be written");
        let (status, answer) = program::failure(folder.root(), &["serve", "--config", "runtime.yaml"]);
        rows.push(Row { input: format!("`{file}`"), status, answer });
    }
    for (name, value) in VARIABLES {
        let mut command = program::command(folder.root());
        command.env(name, value).arg("serve");
        let (status, answer) = program::failure_of(&mut command);
        rows.push(Row { input: format!("`{name}={value}`"), status, answer });
    }
    Section {
        title: "Configurations",
        intro: "`bessemer serve --config runtime.yaml`, where the file was this, with `⏎` for the end of a line; then \
                `bessemer serve` with one variable in the environment:",
        columns: ["input", "exit code", "message"],
        rows,
    }
}
