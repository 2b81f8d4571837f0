//! What was typed on the command line, key by key of the configuration: only flags that are there count.

use clap::ValueEnum;

use crate::model_arguments::{EngineArguments, EngineSettings, MasterSwitch, ModelArguments, Switch};

/// Paths of keys and their values as the configuration spells them.
pub type Given = Vec<(&'static str, String)>;

/// What the flags of every command with a model say.
pub fn engine(arguments: &EngineArguments) -> Given {
    let ModelArguments { model, revision, offline, synth_seed } = &arguments.model;
    let EngineSettings {
        device,
        validation,
        threads,
        activations,
        kv_dtype,
        exact,
        context,
        kv_memory,
        max_sequences,
        max_batch_tokens,
        prefix_cache,
        optimizations,
    } = &arguments.settings;
    let mut given = Given::new();
    value(&mut given, "model", model.as_ref());
    value(&mut given, "revision", revision.as_ref());
    present(&mut given, "offline", *offline);
    value(&mut given, "synth_seed", synth_seed.as_ref());
    value(&mut given, "device", device.as_ref());
    present(&mut given, "validation", *validation);
    value(&mut given, "threads", threads.as_ref());
    value(&mut given, "activations", activations.map(name).as_ref());
    value(&mut given, "kv_dtype", kv_dtype.map(name).as_ref());
    present(&mut given, "exact", *exact);
    value(&mut given, "context", context.as_ref());
    value(&mut given, "kv_memory", kv_memory.as_ref());
    value(&mut given, "max_sequences", max_sequences.as_ref());
    value(&mut given, "max_batch_tokens", max_batch_tokens.as_ref());
    switch(&mut given, "prefix_cache.enabled", *prefix_cache);
    let master = optimizations.metal_opts.map(|switch| match switch {
        MasterSwitch::Auto => "auto",
        MasterSwitch::On => "true",
        MasterSwitch::Off => "false",
    });
    value(&mut given, "metal_optimizations.enabled", master.as_ref());
    switch(&mut given, "metal_optimizations.memory_pool.enabled", optimizations.metal_pool);
    switch(&mut given, "metal_optimizations.blit_queue.enabled", optimizations.blit_queue);
    switch(&mut given, "metal_optimizations.command_buffer_ring.enabled", optimizations.cmd_ring);
    given
}

/// A flag with a value.
pub fn value(given: &mut Given, path: &'static str, value: Option<&impl ToString>) {
    given.extend(value.map(|value| (path, value.to_string())));
}

/// A flag that is on or off.
pub fn switch(given: &mut Given, path: &'static str, switch: Option<Switch>) {
    value(given, path, switch.map(|switch| switch == Switch::On).as_ref());
}

/// A flag without a value.
fn present(given: &mut Given, path: &'static str, present: bool) {
    value(given, path, present.then_some(true).as_ref());
}

/// What a flag with few values is called as it was typed.
pub fn name(flag: impl ValueEnum) -> String {
    flag.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
