//! The keys below `metal_optimizations`, but for those of the three features.

use super::features::{blit_queue, command_buffer_ring, memory_pool};
use crate::key::{Key, Place, get, set};
use crate::{Kind, Settings};

const NO_ROLLBACK: &str = "nothing measures while requests run; the self-check of `auto` has its own 0.95";
const NO_ROLLOUT: &str = "every step goes by the same settings";

pub(super) fn optimizations() -> Vec<Key> {
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
