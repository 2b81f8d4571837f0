//! `/metrics`: what is counted, for Prometheus.

mod serving;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bessemer_engine::{EngineStats, OptimizationStats, OptimizationTimes};

use super::Admin;
use super::runtime::Snapshot;
use super::text_format::{CONTENT_TYPE, Number, Page};
use crate::ServerMeter;

/// `GET /metrics`.
pub async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let text = page(&Snapshot::take(&admin.control));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

fn page(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    page.family("bessemer_build_info", "gauge", "The program; always 1.");
    page.sample("bessemer_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge("bessemer_uptime_seconds", "Seconds since the start.", snapshot.uptime_seconds);
    page.family("bessemer_status", "gauge", "1 for the state that the server is in.");
    for status in ["loading", "running", "draining", "device_lost"] {
        let is = u8::from(status == snapshot.status);
        page.sample("bessemer_status", &[("status", status)], is);
    }
    answers(&mut page, &snapshot.meter);
    if let Some(stats) = &snapshot.engine {
        requests(&mut page, stats);
        if let Some((model, serving)) = &snapshot.serving {
            serving::serving(&mut page, model, stats, serving);
        }
    }
    if let Some(stats) = &snapshot.optimizations {
        let (name, seconds) = ("bessemer_allocation_seconds_total", stats.steps.allocation_ns as f64 / 1e9);
        page.family(name, "counter", "Host time in which transient memory was got and given back.");
        page.sample(name, &[], Number(seconds));
    }
    if let Some(stats) = snapshot.optimizations.as_ref().filter(|_| snapshot.expose_metrics) {
        optimizations(&mut page, stats, snapshot.engine.as_ref());
        memory_pool(&mut page, stats);
        blit_queue(&mut page, stats);
        command_ring(&mut page, stats);
    }
    if let Some(times) = snapshot.optimization_times.as_ref().filter(|_| snapshot.expose_metrics) {
        optimization_times(&mut page, times);
    }
    if let Some((_, serving)) = snapshot.serving.as_ref().filter(|_| snapshot.expose_metrics) {
        serving::first_tokens(&mut page, serving);
    }
    page.into_text()
}

fn answers(page: &mut Page, meter: &ServerMeter) {
    let name = "bessemer_http_requests_total";
    page.family(
        name,
        "counter",
        "Requests that the public server has answered, by route and class of status.",
    );
    for (route, status, count) in meter.answers() {
        page.sample(name, &[("route", &route), ("status", status)], count);
    }
    let name = "bessemer_errors_total";
    page.family(name, "counter", "Requests that were not answered as they were asked, by why.");
    for (kind, count) in meter.errors() {
        page.sample(name, &[("kind", kind.name())], count);
    }
}

fn requests(page: &mut Page, stats: &EngineStats) {
    page.counter("bessemer_requests_total", "Requests accepted.", stats.requests);
    page.family("bessemer_requests_ended_total", "counter", "Requests that ended, by how.");
    for (outcome, count) in
        [("finished", stats.finished), ("cancelled", stats.cancelled), ("failed", stats.failed)]
    {
        page.sample("bessemer_requests_ended_total", &[("outcome", outcome)], count);
    }
    page.gauge("bessemer_requests_running", "Sequences running.", stats.running as f64);
    page.gauge(
        "bessemer_requests_waiting",
        "Requests waiting, preempted ones included.",
        stats.waiting as f64,
    );
    page.counter("bessemer_prompt_tokens_total", "Tokens of prompts.", stats.prompt_tokens);
    page.counter("bessemer_generated_tokens_total", "Tokens generated.", stats.generated_tokens);
    page.counter(
        "bessemer_preemptions_total",
        "Times a running sequence lost its blocks to an older one.",
        stats.preemptions,
    );
    page.counter("bessemer_steps_total", "Steps submitted.", stats.steps);
    page.counter("bessemer_failed_steps_total", "Steps that failed.", stats.failed_steps);
    page.counter(
        "bessemer_repeated_steps_total",
        "Failed steps that were run again, so that no request noticed.",
        stats.repeated_steps,
    );
    page.family("bessemer_step_seconds_total", "counter", "Seconds spent in steps.");
    page.sample("bessemer_step_seconds_total", &[], Number(stats.step_nanos as f64 / 1e9));
    page.gauge("bessemer_kv_blocks", "Blocks of the KV cache.", stats.kv_blocks_total as f64);
    page.gauge("bessemer_kv_blocks_used", "Blocks that running sequences hold.", stats.kv_blocks_used as f64);
    page.gauge(
        "bessemer_kv_usage_ratio",
        "Share of the blocks that running sequences hold, 0 to 1.",
        stats.kv_blocks_used as f64 / stats.kv_blocks_total.max(1) as f64,
    );
    page.gauge(
        "bessemer_prefix_cache_blocks",
        "Blocks that are kept for later requests.",
        stats.kv_blocks_cached as f64,
    );
    page.counter(
        "bessemer_prefix_cache_queries_total",
        "Tokens of prompts that were looked up in the prefix cache.",
        stats.prefix_cache_queries,
    );
    page.counter(
        "bessemer_prefix_cache_hits_total",
        "Tokens of prompts that were there.",
        stats.prefix_cache_hits,
    );
}

fn optimizations(page: &mut Page, stats: &OptimizationStats, engine: Option<&EngineStats>) {
    for (name, help, value) in [
        (
            "metal_feature_wanted",
            "1 where the settings want the feature.",
            stats.features.iter().map(|f| f.wanted).collect::<Vec<_>>(),
        ),
        ("metal_feature_active", "1 where it works.", stats.features.iter().map(|f| f.active).collect()),
        (
            "metal_feature_latched",
            "1 where it failed and is off; /api/v1/stats has the reason.",
            stats.features.iter().map(|f| f.latched.is_some()).collect(),
        ),
    ] {
        page.family(name, "gauge", help);
        for (feature, value) in stats.features.iter().zip(value) {
            page.sample(name, &[("feature", feature.feature.name())], u8::from(value));
        }
    }
    let name = "metal_fallbacks_total";
    page.family(name, "counter", "Times a feature was latched off because it failed, by why.");
    for feature in &stats.features {
        for (reason, count) in &feature.fallback_reasons {
            let labels = [("feature", feature.feature.name()), ("reason", reason.name())];
            page.sample(name, &labels, count);
        }
    }
    page.family("metal_memory_bytes", "gauge", "Device memory, by who holds it.");
    let memory = &stats.memory;
    for (owner, bytes) in [
        ("weights", memory.weights),
        ("kv_cache", memory.kv_cache),
        ("workspace", memory.workspace),
        ("prefix_cache", memory.prefix_cache),
    ] {
        page.sample("metal_memory_bytes", &[("owner", owner)], bytes);
    }
    page.gauge("metal_memory_budget_bytes", "Device memory that may be held.", memory.budget as f64);
    if let Some(engine) = engine {
        page.counter(
            "metal_pool_tokens_generated_total",
            "Tokens generated, on whichever path.",
            engine.generated_tokens,
        );
        page.counter("metal_pool_requests_total", "Requests accepted, on whichever path.", engine.requests);
    }
}

fn memory_pool(page: &mut Page, stats: &OptimizationStats) {
    let pool = &stats.memory_pool;
    page.counter("metal_pool_acquired_total", "Buffers handed out by the pool.", pool.total_acquired);
    page.counter("metal_pool_released_total", "Buffers whose memory came back.", pool.total_released);
    page.counter("metal_pool_exhaustion_total", "Requests that no heap could serve.", pool.exhaustion_events);
    page.counter(
        "metal_pool_fallback_allocations_total",
        "Requests that the device served although the pool was on.",
        pool.fallback_allocations,
    );
    page.counter(
        "metal_pool_device_allocations_total",
        "Pieces of device memory that were asked for and got.",
        pool.device_allocations,
    );
    page.counter("metal_pool_placed_total", "Buffers that were created in heaps.", pool.placed_buffers);
    page.gauge("metal_pool_available", "Heap slots without a buffer in use.", pool.available as f64);
    page.gauge("metal_pool_heaps", "Heaps reserved.", pool.total_heaps as f64);
    page.gauge("metal_pool_in_use", "Buffers that are out; acquired less released.", pool.live as f64);
    page.gauge("metal_pool_hit_rate", "Share of requests that created nothing, 0 to 1.", pool.hit_rate);
    page.gauge("metal_pool_utilization", "Bytes in use over bytes of heaps, 0 to 1.", pool.utilization);
}

fn blit_queue(page: &mut Page, stats: &OptimizationStats) {
    let queue = &stats.blit_queue;
    page.counter("blit_uploads_total", "Uploads that arrived.", queue.total_uploads);
    page.counter("blit_downloads_total", "Downloads that arrived.", queue.total_downloads);
    page.counter("blit_upload_bytes_total", "Bytes of uploads.", queue.bytes_up);
    page.counter("blit_download_bytes_total", "Bytes of downloads.", queue.bytes_down);
    page.counter(
        "blit_sync_waits_total",
        "Times that the host waited for a transfer.",
        queue.sync_wait_count,
    );
    page.counter("blit_timeouts_total", "Waits that ran out of time.", queue.timeouts);
    page.counter("blit_slow_operations_total", "Copies that took longer than 10 ms.", queue.slow_operations);
    page.counter("blit_failed_transfers_total", "Transfers that failed.", queue.failed_transfers);
    page.counter("blit_checksum_failures_total", "Transfers that arrived damaged.", queue.checksum_failures);
    page.gauge("blit_queue_depth", "Slots in use.", queue.queue_depth as f64);
    page.gauge(
        "blit_overlap_ratio",
        "Share of copying that ran beside compute, 0 to 1.",
        queue.overlap_ratio,
    );
}

fn command_ring(page: &mut Page, stats: &OptimizationStats) {
    let ring = &stats.command_buffer_ring;
    page.counter("command_ring_acquired_total", "Slots taken.", ring.total_acquired);
    page.counter("command_ring_submitted_total", "Command buffers submitted.", ring.total_submitted);
    page.counter(
        "command_ring_reused_total",
        "Submissions whose commands had been submitted before.",
        stats.steps.resubmitted,
    );
    page.counter("command_ring_completed_total", "Submissions that were seen to end.", ring.total_completed);
    page.counter("command_ring_failed_total", "Submissions that failed.", ring.total_failed);
    page.counter("command_ring_waits_total", "Times that the host waited for a slot.", ring.wait_events);
    page.counter("command_ring_timeouts_total", "Such waits that ran out of time.", ring.timeout_events);
    page.counter(
        "command_ring_exhaustion_total",
        "Submissions that went ahead beyond the ring.",
        ring.exhaustion_events,
    );
    page.gauge("command_ring_available", "Slots free.", ring.available_count as f64);
    page.gauge("command_ring_size", "Slots.", ring.ring_size as f64);
    page.gauge("command_ring_in_flight", "Submissions in flight.", ring.in_flight as f64);
    page.gauge(
        "command_ring_reuse_rate",
        "Share of submissions whose commands had been submitted before, 0 to 1.",
        ring.reuse_rate,
    );
    page.gauge(
        "command_ring_gpu_utilization",
        "Share of the time in which the device was at work, by its own clock, 0 to 1.",
        ring.gpu_utilization(),
    );
}

fn optimization_times(page: &mut Page, times: &OptimizationTimes) {
    for (name, help, values) in [
        (
            "metal_pool_acquire_duration_seconds",
            "Host time to get a buffer, from a heap or from the device.",
            &times.pool_acquire,
        ),
        ("blit_upload_duration_seconds", "Time in which an upload was being copied.", &times.upload),
        ("blit_download_duration_seconds", "Time in which a download was being copied.", &times.download),
        (
            "command_ring_wait_seconds",
            "Waits of the host: for a slot, or with the ring off for a submission.",
            &times.ring_wait,
        ),
    ] {
        page.histogram(name, help, &[], values);
    }
}
