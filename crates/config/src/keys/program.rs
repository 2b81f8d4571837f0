//! The keys of the program itself: model, device, server, the operator's listener.

use crate::key::{Key, Place, get, set};
use crate::{Kind, Settings};

pub(super) fn program() -> Vec<Key> {
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
        Key::new(
            "prefix_cache.enabled",
            Flag,
            at!(engine.prefix_cache),
            "whether keys and values of one request serve the next that begins alike",
        )
        .flag("--prefix-cache"),
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
        Key::new("log.format", Name(&["text", "json"]), at!(log.format), "form of the log on standard error")
            .flag("--log-format"),
        Key::new(
            "tracing.otlp_endpoint",
            Text,
            at!(tracing.otlp_endpoint),
            "collector of OpenTelemetry that takes traces, by OTLP over HTTP, such as http://localhost:4318",
        )
        .or("OTEL_EXPORTER_OTLP_ENDPOINT, else no traces")
        .flag("--otlp-endpoint"),
    ]
}
