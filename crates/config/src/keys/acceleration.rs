//! The keys below `metal_acceleration`.

use crate::key::{Key, Place, get, set};
use crate::{Kind, Settings};

const NO_ACCELERATION: &str = "the kernels for a device are chosen by shape, and the KV cache by kv_dtype";

pub(super) fn acceleration() -> Vec<Key> {
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
