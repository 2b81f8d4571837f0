//! The sixteen settings, and changes between them with requests in flight.

use std::sync::Arc;
use std::time::Duration;

use bessemer_engine::{Feature, Optimizations, Reply};
use bessemer_hal::Device;

use crate::support::{collect, combinations, cpu, engine, golden, on_vulkan, request, together};

/// On one engine that is switched, the plain path first.
fn all_settings_give_the_same_tokens(
    device: &Arc<dyn Device>,
    model: &str,
    batches: &[usize],
    tokens: usize,
) {
    let engine = engine(device, model, Optimizations::off());
    let plain: Vec<_> = batches.iter().map(|batch| together(&engine, *batch, tokens)).collect();
    assert!(plain.iter().flatten().all(|output| output.len() == tokens));
    for settings in combinations() {
        engine.update_optimizations(settings.clone()).unwrap();
        for (batch, plain) in batches.iter().zip(&plain) {
            let with: Vec<_> = Feature::ALL.into_iter().filter(|feature| settings.wants(*feature)).collect();
            assert_eq!(&together(&engine, *batch, tokens), plain, "{model}, {batch} together, with {with:?}");
        }
        let stats = engine.optimization_stats().unwrap();
        assert!(stats.features.iter().all(|feature| feature.latched.is_none()), "{stats:?}");
    }
    assert_eq!(engine.stats().failed_steps, 0);
}

#[test]
fn golden_models_on_the_cpu() {
    for case in golden(&["llama", "mistral", "qwen2", "qwen3"]) {
        let model = case.join("model");
        all_settings_give_the_same_tokens(&cpu(), model.to_str().unwrap(), &[1, 5, 16], 12);
    }
}

fn on_vulkan_with(models: &[&str], batches: &[usize], tokens: usize) {
    on_vulkan(|device| {
        for case in golden(models) {
            let model = case.join("model");
            all_settings_give_the_same_tokens(&device, model.to_str().unwrap(), batches, tokens);
            println!("{}: the same tokens", case.file_name().unwrap().display());
        }
    });
}

/// A dense model and one with experts; the next test has all.
#[test]
fn golden_models_on_vulkan() {
    on_vulkan_with(&["qwen2_4bit_g64", "qwen3_moe_4bit_g64"], &[1, 5], 6);
}

#[test]
#[ignore = "takes long on a GPU made of software: docs/metal-optimizations.md has the command"]
fn all_golden_models_on_vulkan() {
    on_vulkan_with(&["llama", "mistral", "qwen2", "qwen3"], &[1, 5, 16], 6);
}

#[test]
fn the_storyteller_on_the_cpu() {
    all_settings_give_the_same_tokens(&cpu(), "default", &[1, 2, 9], 24);
}

/// Settings change at random while requests join, stream and leave.
#[test]
fn switching_while_requests_stream() {
    let device = cpu();
    let engine = engine(&device, "default", Optimizations::on());
    let vocab = engine.info().vocab;
    let expected = together(&engine, 12, 60);
    let mut streams: Vec<_> =
        (0..6).map(|number| engine.submit(request(number, vocab, 60)).unwrap()).collect();
    let mut order = combinations();
    order.rotate_left(5);
    for (at, settings) in order.into_iter().chain(combinations()).enumerate() {
        engine.update_optimizations(settings.clone()).unwrap();
        let stats = engine.optimization_stats().unwrap();
        for feature in &stats.features {
            assert_eq!(feature.active, settings.wants(feature.feature), "in force when the call returns");
        }
        if at % 5 == 0 && streams.len() < 12 {
            streams.push(engine.submit(request(streams.len(), vocab, 60)).unwrap());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for (stream, expected) in streams.into_iter().zip(expected) {
        assert_eq!(collect(stream).unwrap(), expected);
    }
    assert_eq!((engine.stats().failed, engine.stats().failed_steps), (0, 0));
}

#[test]
fn a_wrong_setting_changes_nothing() {
    let device = cpu();
    let engine = engine(&device, "default", Optimizations::on());
    let mut wrong = Optimizations::off();
    wrong.command_buffer_ring.config.ring_size = 99;
    let error = engine.update_optimizations(wrong).unwrap_err().to_string();
    assert!(error.contains("command_buffer_ring.ring_size is 99") && error.contains("2 to 8"), "{error}");
    assert!(engine.optimization_stats().unwrap().features.iter().all(|feature| feature.active));
    assert_eq!(together(&engine, 1, 5)[0].len(), 5);
}

/// A stop token is found one step late; what the device drew meanwhile shows nowhere.
#[test]
fn the_surplus_step_leaves_no_trace() {
    let device = cpu();
    let engine = engine(&device, "default", Optimizations::on());
    let vocab = engine.info().vocab;
    let all = together(&engine, 1, 40).remove(0);
    for stop in [3, 10, 25] {
        let first = all.iter().position(|token| *token == all[stop]).unwrap();
        let mut wanted = request(0, vocab, 40);
        wanted.stop_tokens = vec![all[stop]];
        let mut stream = engine.submit(wanted).unwrap();
        let mut tokens = Vec::new();
        let usage = loop {
            match stream.blocking_next().unwrap() {
                Reply::Token(token) => tokens.push(token.id),
                Reply::Finished { usage, .. } => break usage,
                Reply::Failed(error) => panic!("{error}"),
            }
        };
        assert_eq!((tokens.as_slice(), usage.completion_tokens), (&all[..first], first));
        assert_eq!(together(&engine, 1, 40)[0], all, "the next request finds everything as ever");
    }
    let before = engine.stats();
    assert_eq!((before.running, before.kv_blocks_used), (0, 0));
}
