//! What the frames of the board say. Limits are those of the alerts (dashboards/prometheus).

use bessemer_config::byte_size;

use super::comparison::Unit;
use super::draw::Entry;
use super::history::History;
use super::state;

/// Figures of the newest answer, and what has grown since those before it.
struct Figures<'a>(&'a History);

impl Figures<'_> {
    fn number(&self, place: &str) -> Option<f64> {
        self.0.latest()?.number(place)
    }

    /// Whole numbers, each with its word; absent where one is not told.
    fn counts(&self, counts: &[(&str, &str)]) -> Option<String> {
        let count = |(place, word): &(&str, &str)| Some(format!("{:.0} {word}", self.number(place)?));
        let counts: Option<Vec<_>> = counts.iter().map(count).collect();
        Some(counts?.join(", ").trim_end().to_owned())
    }

    /// One number of another.
    fn of(&self, part: &str, whole: &str) -> Option<String> {
        Some(format!("{:.0} of {:.0}", self.number(part)?, self.number(whole)?))
    }

    fn rate(&self, place: &str, unit: &str) -> Option<String> {
        self.0.rate(place).map(|rate| format!("{rate:.1} {unit}"))
    }

    fn bytes(&self, place: &str) -> Option<String> {
        self.number(place).map(bytes)
    }

    fn bytes_per_second(&self, place: &str) -> Option<String> {
        self.0.rate(place).map(|rate| format!("{}/s", bytes(rate)))
    }

    /// A sum of counters that should be none.
    fn faults(&self, name: &'static str, places: &[&str]) -> Entry {
        let sum = places.iter().map(|place| self.number(place)).sum();
        Entry::judged(name, sum, Some((0.0, f64::INFINITY)), whole)
    }
}

fn share(share: f64) -> String {
    Unit::Percent.show(share)
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn bytes(bytes: f64) -> String {
    byte_size::show(bytes.max(0.0) as u64)
}

/// What is asked and answered.
pub fn requests(history: &History) -> Vec<Entry> {
    let figures = Figures(history);
    let now = [("/engine/running", "running"), ("/engine/waiting", "waiting")];
    let ended =
        [("/engine/finished", "done"), ("/engine/cancelled", "cancelled"), ("/engine/failed", "failed")];
    vec![
        Entry::new("now", figures.counts(&now)),
        Entry::new("ended", figures.counts(&ended)),
        Entry::new("generated", figures.rate("/engine/generated_tokens", "tok/s")),
        Entry::new("prompts", figures.rate("/engine/prompt_tokens", "tok/s")),
    ]
}

/// Who holds memory.
pub fn memory(history: &History) -> Vec<Entry> {
    let figures = Figures(history);
    let place = |owner: &str| format!("/metal_optimizations/memory/{owner}");
    let owners = ["weights", "kv_cache", "workspace", "prefix_cache"];
    let held: Option<f64> = owners.iter().map(|owner| figures.number(&place(owner))).sum();
    let budget = figures.bytes(&place("budget"));
    vec![
        Entry::new("KV blocks", figures.of("/engine/kv_blocks_used", "/engine/kv_blocks_total")),
        Entry::new("preemptions", figures.counts(&[("/engine/preemptions", "")])),
        Entry::new(
            "weights, KV",
            figures
                .bytes(&place("weights"))
                .zip(figures.bytes(&place("kv_cache")))
                .map(|(weights, kv)| format!("{weights}, {kv}")),
        ),
        Entry::new("held", held.zip(budget).map(|(held, budget)| format!("{} of {budget}", bytes(held)))),
    ]
}

/// The memory pool.
pub fn pool(history: &History) -> Vec<Entry> {
    let figures = Figures(history);
    let place = |name: &str| format!("/metal_optimizations/memory_pool/{name}");
    let number = |name: &str| figures.number(&place(name));
    let books = number("total_acquired").zip(number("total_released")).zip(number("live"));
    let created = history.growth(&place("placed_buffers")).zip(history.growth(&place("device_allocations")));
    let asked = history.growth(&place("total_allocations")).filter(|asked| *asked > 0.0);
    let hits = created.zip(asked).map(|((placed, device), asked)| 1.0 - (placed + device) / asked);
    let on = history.latest().is_some_and(|stats| state::is_active(stats, "memory_pool"));
    let lost = books.map(|((acquired, released), live)| (acquired - released - live).abs());
    vec![
        Entry::new("buffers in use", figures.counts(&[(&place("live"), "")])),
        Entry::new("heaps in use", figures.of(&place("active_heaps"), &place("total_heaps"))),
        // Recorded steps keep their memory and ask for none: then there is nothing to judge.
        Entry::judged("hit rate", hits, on.then_some((0.9, 0.8)), share),
        figures.faults("exhausted", &[&place("exhaustion_events")]),
        Entry::judged("lost", lost, Some((0.0, 10.0)), whole),
    ]
}

/// The transfer queue.
pub fn transfers(history: &History) -> Vec<Entry> {
    let figures = Figures(history);
    let place = |name: &str| format!("/metal_optimizations/blit_queue/{name}");
    vec![
        Entry::judged("pending", figures.number(&place("queue_depth")), Some((12.0, 16.0)), whole),
        Entry::new("up", figures.bytes_per_second(&place("bytes_up"))),
        Entry::new("down", figures.bytes_per_second(&place("bytes_down"))),
        // Where nothing is copied beside anything, as on one memory, 0 is no fault.
        Entry::new("overlap", figures.number(&place("overlap_ratio")).map(|share| Unit::Percent.show(share))),
        figures
            .faults("failed", &[&place("timeouts"), &place("failed_transfers"), &place("checksum_failures")]),
    ]
}

/// The command ring.
pub fn ring(history: &History) -> Vec<Entry> {
    let figures = Figures(history);
    let place = |name: &str| format!("/metal_optimizations/command_buffer_ring/{name}");
    let reused = history.mean("/metal_optimizations/steps/resubmitted", "/metal_optimizations/steps/steps");
    let on = history.latest().is_some_and(|stats| state::is_active(stats, "command_buffer_ring"));
    let wait = figures.number(&place("avg_wait_ms"));
    vec![
        Entry::new("in flight", figures.of(&place("in_flight"), &place("ring_size"))),
        Entry::new("submissions", figures.rate(&place("total_submitted"), "/s")),
        Entry::judged("reused", reused, on.then_some((0.8, 0.7)), share),
        Entry::new("mean wait", wait.map(|wait| format!("{wait:.2} ms"))),
        figures.faults("failed", &[&place("total_failed"), &place("timeout_events")]),
    ]
}
