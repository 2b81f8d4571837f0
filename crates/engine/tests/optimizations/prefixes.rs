//! With the prefix cache and without it: the same tokens, bit for bit on the CPU device.

use std::sync::Arc;

use bessemer_engine::{
    ChatPrompt, Engine, EngineOptions, Optimizations, Prompt, Reply, ReplyStream, Request, Sampling,
    TextReply, TextRequest, Usage,
};
use bessemer_hal::Device;
use serde_json::json;

use crate::support::{combinations, cpu, golden, on_vulkan};

fn load(device: &Arc<dyn Device>, model: &str, prefix_cache: bool) -> Engine {
    // On a GPU more rows take other kernels, whose last bits differ: which rows share a step depends on what is cached.
    let max_batch_tokens = if device.info().limits.gpu.is_some() { 16 } else { 48 };
    let optimizations = Optimizations::on();
    let options = EngineOptions {
        model: model.into(),
        optimizations,
        max_batch_tokens,
        prefix_cache,
        ..EngineOptions::default()
    };
    Engine::load_on(device.clone(), options).unwrap()
}

/// Tokens with the bits of their log-probabilities, and what was used.
fn collect(mut stream: ReplyStream) -> (Vec<(u32, u32)>, Usage) {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next().expect("a stream ends with an end") {
            Reply::Token(token) => tokens.push((token.id, token.logprob.to_bits())),
            Reply::Finished { usage, .. } => return (tokens, usage),
            Reply::Failed(error) => panic!("{error}"),
        }
    }
}

fn request(prompt: &[u32], sampling: &Sampling, salt: usize, tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling: sampling.clone(),
        max_tokens: Some(tokens),
        ignore_end: true,
        cache_salt: Some(salt.to_string()),
        ..Request::default()
    }
}

/// A dialogue of four turns, then four requests at once that go on from its second turn; and the tokens that each found.
fn dialogue(engine: &Engine, sampling: &Sampling, salt: usize) -> (Vec<Vec<(u32, u32)>>, Vec<usize>) {
    let vocab = engine.info().vocab as u32;
    let user = |turn: u32| (0..19).map(move |at| (turn * 7919 + at * 104_729) % vocab);
    let mut dialogue = Vec::new();
    let mut second = Vec::new();
    let (mut outputs, mut found) = (Vec::new(), Vec::new());
    for turn in 0..4 {
        dialogue.extend(user(turn));
        let (output, usage) = collect(engine.submit(request(&dialogue, sampling, salt, 13)).unwrap());
        dialogue.extend(output.iter().map(|(id, _)| *id));
        outputs.push(output);
        found.push(usage.cached_tokens);
        if turn == 1 {
            second = dialogue.clone();
        }
    }
    let others: Vec<_> = (10..14)
        .map(|turn| [second.clone(), user(turn).collect()].concat())
        .map(|prompt| engine.submit(request(&prompt, sampling, salt, 9)).unwrap())
        .collect();
    for other in others {
        let (output, usage) = collect(other);
        outputs.push(output);
        found.push(usage.cached_tokens);
    }
    (outputs, found)
}

fn same_with_and_without(device: &Arc<dyn Device>, model: &str, exact: bool) {
    let drawn = Sampling {
        temperature: 0.8,
        top_p: 0.95,
        repetition_penalty: 1.1,
        seed: Some(5),
        ..Sampling::default()
    };
    let [plain, cached] = [false, true].map(|prefix_cache| load(device, model, prefix_cache));
    for sampling in [Sampling::greedy(), drawn] {
        let (expected, nothing) = dialogue(&plain, &sampling, 0);
        let (outputs, found) = dialogue(&cached, &sampling, 0);
        let bits = |outputs: Vec<Vec<(u32, u32)>>| {
            let bits = |(id, bits)| (id, if exact { bits } else { 0 });
            outputs.into_iter().map(|output| output.into_iter().map(bits).collect()).collect::<Vec<Vec<_>>>()
        };
        assert_eq!(bits(outputs), bits(expected), "{model}");
        // Each turn finds all of the turns before, but for the last token of an answer, in blocks of 16: 31 of 32
        // tokens, 63 of 64, 95 of 96. The third turn has computed the last token of the second. The second sampling finds
        // the first turn's prompt of 19 tokens too.
        assert_eq!(found[1..], [16, 48, 80, 64, 64, 64, 64], "{model}");
        assert_eq!(nothing, [0; 8]);
    }
    let (stats, info) = (cached.stats(), cached.info());
    assert_eq!(stats.prefix_cache_hits, 16 + 2 * (16 + 48 + 80 + 4 * 64));
    assert_eq!(stats.kv_blocks_free + stats.kv_blocks_cached, stats.kv_blocks_total);
    // What is cached counts for the prefix cache, and all of it together is what was allocated.
    let memory = cached.optimization_stats().unwrap().memory;
    let block = info.kv_bytes / info.kv_blocks as u64;
    assert!(stats.kv_blocks_cached > 10);
    assert_eq!(memory.prefix_cache, block * stats.kv_blocks_cached as u64);
    assert_eq!(memory.prefix_cache + memory.kv_cache, info.kv_bytes);
    assert_eq!((plain.stats().kv_blocks_cached, plain.stats().prefix_cache_queries), (0, 0));
}

#[test]
fn the_same_bits_on_the_cpu() {
    same_with_and_without(&cpu(), "default", true);
    for model in golden(&["mistral", "qwen2", "llama_mxfp4", "qwen3_mixed", "qwen3_moe_4bit_g32"]) {
        same_with_and_without(&cpu(), &model.join("model").display().to_string(), true);
    }
}

#[test]
fn the_same_bits_with_every_setting() {
    let device = cpu();
    let [plain, cached] = [false, true].map(|prefix_cache| load(&device, "default", prefix_cache));
    let (expected, _) = dialogue(&plain, &Sampling::greedy(), 0);
    for (salt, settings) in combinations().into_iter().enumerate() {
        cached.update_optimizations(settings).unwrap();
        let (outputs, found) = dialogue(&cached, &Sampling::greedy(), salt);
        assert_eq!((outputs, &found[..4]), (expected.clone(), [0, 16, 48, 80].as_slice()), "setting {salt}");
    }
}

#[test]
fn the_same_tokens_on_vulkan() {
    on_vulkan(|device| {
        for model in golden(&["qwen2_4bit", "qwen3_moe_4bit_g32"]) {
            same_with_and_without(&device, &model.join("model").display().to_string(), false);
        }
    });
}

#[test]
fn a_chat_finds_its_turns() {
    let engine = load(&cpu(), "default", true);
    let mut messages = Vec::new();
    let mut before = 0;
    for (turn, question) in
        ["Tell me a story about a fox.", "And then?", "Was the fox happy in the end?"].into_iter().enumerate()
    {
        messages.push(json!({"role": "user", "content": question}));
        let prompt = Prompt::Chat(ChatPrompt::new(json!(messages)));
        let mut stream = engine
            .generate_text(TextRequest {
                prompt,
                sampling: Sampling::greedy(),
                max_tokens: Some(80),
                ..TextRequest::default()
            })
            .unwrap();
        let mut text = String::new();
        let usage = loop {
            match stream.blocking_next().expect("a stream ends with an end") {
                TextReply::Delta { text: piece, .. } => text += &piece,
                TextReply::Finished { usage, .. } => break usage,
                TextReply::Failed(error) => panic!("{error}"),
            }
        };
        println!("turn {turn}: {usage:?}");
        // The template's words between the turns, and the answer's last token.
        assert!(usage.cached_tokens + 16 > before, "turn {turn}: {usage:?}, {before} tokens before");
        before = usage.prompt_tokens + usage.completion_tokens - 1;
        messages.push(json!({"role": "assistant", "content": text}));
    }
    assert!(before > 150);
}

#[test]
fn a_self_check_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = EngineOptions { cache_folder: Some(folder.path().to_owned()), ..EngineOptions::default() };
    let engine = Engine::load_on(cpu(), options).unwrap();
    let stats = engine.stats();
    assert!(stats.steps > 0, "{stats:?}");
    assert_eq!((stats.kv_blocks_cached, stats.prefix_cache_queries, stats.prefix_cache_hits), (0, 0, 0));
}
