//! The engine over the embedded model: output is the request's own, whatever shares the steps with it.

use std::time::{Duration, Instant};

use bessemer_engine::{
    ChatPrompt, Engine, EngineError, EngineOptions, FinishReason, Optimizations, Prompt, Reply, ReplyStream,
    Request, Sampling, TextReply, TextRequest, TextStream, Token, Usage,
};
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use serde_json::json;

fn load(change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let optimizations = Optimizations::on();
    let mut options = EngineOptions { threads: Some(2), optimizations, ..EngineOptions::default() };
    change(&mut options);
    Engine::load(options).unwrap()
}

/// As [`load`], on a device that needs seconds for a request without an end.
fn load_slow(change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let device = FaultDevice::new(CpuDevice::new(&CpuOptions { threads: Some(2), ..CpuOptions::default() }));
    let plan = FaultPlan::new(0).with(Fault::SubmissionTimeout, 1.0);
    device.arm(plan.with_timeout(Duration::from_millis(10)));
    let mut options = EngineOptions { optimizations: Optimizations::on(), ..EngineOptions::default() };
    change(&mut options);
    Engine::load_on(device, options).unwrap()
}

fn encode(engine: &Engine, text: &str) -> Vec<u32> {
    engine.tokenizer().unwrap().encode(text, bessemer_text::SpecialTokens::Add).unwrap()
}

const PROMPTS: [&str; 6] = [
    "Once upon a time",
    "The dog was very sad because",
    "Tom and Lily went to the park. They saw a big tree and a small bird. The bird said",
    "One day",
    "There was a cat named Mia who lived in a yellow house near the river with her mom and her dad. Every morning she",
    "A frog",
];

fn request(prompt: Vec<u32>, sampling: Sampling, tokens: usize) -> Request {
    Request { prompt, sampling, max_tokens: Some(tokens), ignore_end: true, ..Request::default() }
}

fn seeded(seed: u64) -> Sampling {
    Sampling {
        temperature: 0.9,
        top_p: 0.95,
        repetition_penalty: 1.1,
        frequency_penalty: 0.2,
        seed: Some(seed),
        ..Sampling::default()
    }
}

/// The tokens with their log-probabilities' bits, and the end.
fn collect(mut stream: ReplyStream) -> (Vec<(u32, u32)>, FinishReason, Usage) {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next().expect("a stream ends with an end") {
            Reply::Token(Token { id, logprob, .. }) => tokens.push((id, logprob.to_bits())),
            Reply::Finished { reason, usage } => return (tokens, reason, usage),
            Reply::Failed(error) => panic!("{error}"),
        }
    }
}

fn tokens(engine: &Engine, request: Request) -> Vec<(u32, u32)> {
    collect(engine.submit(request).unwrap()).0
}

fn settled(engine: &Engine) {
    assert!(engine.drain(Duration::from_secs(60)));
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.kv_blocks_free + stats.kv_blocks_cached, stats.kv_blocks_total);
}

fn requests(engine: &Engine) -> Vec<Request> {
    let all = PROMPTS.iter().enumerate();
    all.map(|(at, prompt)| {
        let sampling = if at % 2 == 0 { Sampling::greedy() } else { seeded(at as u64) };
        request(encode(engine, prompt), sampling, 16 + at)
    })
    .collect()
}

#[test]
fn output_is_the_same_alone_together_in_any_chunking_and_after_preemption() {
    let alone = load(|_| ());
    let expected: Vec<_> = requests(&alone).into_iter().map(|request| tokens(&alone, request)).collect();
    assert_eq!(expected[0].len(), 16);
    settled(&alone);

    for max_batch_tokens in [1, 3, 7, 64, 512] {
        let engine = load(|options| options.max_batch_tokens = max_batch_tokens);
        let streams: Vec<_> =
            requests(&engine).into_iter().map(|request| engine.submit(request).unwrap()).collect();
        for (stream, expected) in streams.into_iter().zip(&expected) {
            assert_eq!(&collect(stream).0, expected, "max_batch_tokens {max_batch_tokens}");
        }
        settled(&engine);
    }

    let bytes = alone.info().kv_bytes / alone.info().kv_blocks as u64 / 16;
    let engine = load(|options| options.kv_memory = Some(bytes * 96));
    assert_eq!(engine.info().kv_blocks, 6);
    let streams: Vec<_> =
        requests(&engine).into_iter().map(|request| engine.submit(request).unwrap()).collect();
    for (stream, expected) in streams.into_iter().zip(&expected) {
        assert_eq!(&collect(stream).0, expected, "after preemption");
    }
    assert!(engine.stats().preemptions > 0, "{:?}", engine.stats());
    settled(&engine);
}

#[test]
fn seeds_are_reproducible_and_matter() {
    let engine = load(|_| ());
    let prompt = encode(&engine, PROMPTS[0]);
    let draw = |seed| request(prompt.clone(), Sampling { temperature: 1.0, seed, ..Sampling::default() }, 24);
    let first = tokens(&engine, draw(Some(1)));
    assert_eq!(first, tokens(&engine, draw(Some(1))));
    assert_ne!(first, tokens(&engine, draw(Some(2))));
    assert_ne!(tokens(&engine, draw(None)), tokens(&engine, draw(None)));
    settled(&engine);
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let engine = load(|options| options.max_batch_tokens = 5);
    let prompt = encode(&engine, PROMPTS[1]);
    let sampling = Sampling { top_logprobs: 3, ..Sampling::greedy() };
    let mut stream = engine.submit(request(prompt.clone(), sampling, 6)).unwrap();
    let mut generated = Vec::new();
    while let Some(Reply::Token(token)) = stream.blocking_next() {
        generated.push(token);
    }
    assert_eq!(generated.len(), 6);
    let ids: Vec<u32> = prompt.iter().copied().chain(generated.iter().map(|token| token.id)).collect();
    let vocab = engine.info().vocab;
    let logits = engine.logits(&ids).unwrap();
    assert_eq!(logits.len(), ids.len() * vocab);
    for (token, row) in generated.iter().zip(logits.chunks(vocab).skip(prompt.len() - 1)) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let expected = f64::from(row[token.id as usize] - largest) - total.ln();
        assert!((f64::from(token.logprob) - expected).abs() < 1e-4, "{} and {expected}", token.logprob);
        assert_eq!(row[token.id as usize], largest);
        assert_eq!(token.top.len(), 3);
        assert_eq!(token.top[0], (token.id, token.logprob));
        assert!(token.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
    settled(&engine);
}

#[test]
fn biases_and_end_tokens() {
    let engine = load(|_| ());
    let prompt = encode(&engine, PROMPTS[0]);
    let end = engine.info().end_tokens[1];
    let towards = |bias| Sampling { logit_bias: vec![(end, bias)], ..Sampling::greedy() };
    let stopping = Request { ignore_end: false, ..request(prompt.clone(), towards(100.0), 5) };
    let (tokens, reason, usage) = collect(engine.submit(stopping).unwrap());
    assert_eq!((tokens.len(), reason, usage.completion_tokens), (0, FinishReason::Stop, 0));
    let (tokens, reason, _) = collect(engine.submit(request(prompt, towards(100.0), 5)).unwrap());
    assert_eq!(
        (tokens.iter().map(|(id, _)| *id).collect::<Vec<_>>(), reason),
        (vec![end; 5], FinishReason::Length)
    );
    settled(&engine);
}

#[test]
fn cancellation_frees_blocks_within_a_step() {
    let engine = load_slow(|options| options.max_sequences = 2);
    let prompt = encode(&engine, PROMPTS[0]);
    let endless = || Request { max_tokens: None, ..request(prompt.clone(), Sampling::greedy(), 1) };
    let mut dropped = engine.submit(endless()).unwrap();
    let mut cancelled = engine.submit(endless()).unwrap();
    assert!(matches!(dropped.blocking_next(), Some(Reply::Token(_))));
    assert!(matches!(cancelled.blocking_next(), Some(Reply::Token(_))));
    assert!(engine.stats().kv_blocks_used > 0);
    drop(dropped);
    cancelled.cancel();
    let (_, reason, _) = collect(cancelled);
    assert_eq!(reason, FinishReason::Cancelled);
    settled(&engine);
    assert_eq!(engine.stats().cancelled, 2);
}

#[test]
fn busy_beyond_the_queue() {
    let engine = load_slow(|options| (options.max_sequences, options.max_queue) = (1, 1));
    let prompt = encode(&engine, PROMPTS[0]);
    let endless = || Request { max_tokens: None, ..request(prompt.clone(), Sampling::greedy(), 1) };
    let (_running, _waiting) = (engine.submit(endless()).unwrap(), engine.submit(endless()).unwrap());
    let refused = engine.submit(endless()).unwrap_err();
    assert!(matches!(refused, EngineError::Busy { in_flight: 2, limit: 2 }), "{refused}");
    assert!(refused.to_string().contains("max_queue"));
    engine.shutdown();
    assert!(matches!(engine.submit(endless()), Err(EngineError::ShuttingDown)));
}

#[test]
fn draining_lets_running_requests_finish() {
    let engine = load(|_| ());
    let stream = engine.submit(request(encode(&engine, PROMPTS[0]), Sampling::greedy(), 40)).unwrap();
    assert!(engine.drain(Duration::from_secs(60)));
    assert!(matches!(engine.submit(Request::default()), Err(EngineError::Invalid { .. })));
    let valid = request(vec![5], Sampling::greedy(), 1);
    assert!(matches!(engine.submit(valid), Err(EngineError::ShuttingDown)));
    assert_eq!(collect(stream).0.len(), 40);
}

/// All text, the last item, and the number of tokens reported.
fn listen(mut stream: TextStream) -> (String, TextReply, usize) {
    let (mut text, mut count) = (String::new(), 0);
    loop {
        match stream.blocking_next().expect("a stream ends with an end") {
            TextReply::Delta { text: piece, tokens } => {
                text += &piece;
                count += tokens.len();
            }
            end => {
                assert!(stream.blocking_next().is_none());
                return (text, end, count);
            }
        }
    }
}

fn story(stop: &[&str]) -> TextRequest {
    TextRequest {
        prompt: Prompt::Text(PROMPTS[0].into()),
        sampling: Sampling::greedy(),
        max_tokens: Some(40),
        stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
        ..TextRequest::default()
    }
}

#[test]
fn stop_strings_end_the_text_and_the_request() {
    let engine = load(|_| ());
    let (whole, end, count) = listen(engine.generate_text(story(&[])).unwrap());
    let TextReply::Finished { usage, matched_stop: None, .. } = end else { panic!("{end:?}") };
    assert_eq!(count, usage.completion_tokens);
    assert!(whole.chars().count() > 40, "{whole}");
    // Cut in the middle of words, so that the stop string crosses the edges of tokens.
    for (start, len) in [(5, 3), (11, 9), (20, 1), (30, 6)] {
        let stop: String = whole.chars().skip(start).take(len).collect();
        let (text, end, _) = listen(engine.generate_text(story(&["never to be seen", &stop])).unwrap());
        assert_eq!(text, whole[..whole.find(&stop).unwrap()]);
        let TextReply::Finished { reason, usage: cut, matched_stop } = end else { panic!("{end:?}") };
        assert_eq!((reason, matched_stop), (FinishReason::Stop, Some(stop)));
        assert!(cut.completion_tokens < usage.completion_tokens && cut.prompt_tokens == usage.prompt_tokens);
    }
    settled(&engine);
}

#[test]
fn a_dialogue() {
    let engine = load(|_| ());
    let chat = ChatPrompt::new(json!([{"role": "user", "content": "Tell me a story about a fox."}]));
    let request = TextRequest { prompt: Prompt::Chat(chat), max_tokens: Some(300), ..story(&[]) };
    let stream = engine.generate_text(request).unwrap();
    assert!(stream.prompt_tokens() > 8);
    let (text, end, _) = listen(stream);
    assert!(matches!(end, TextReply::Finished { .. }));
    assert!(text.len() > 100 && !text.contains("<|"), "{text}");
    settled(&engine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_streams_at_once() {
    use futures::StreamExt;
    let engine = load(|_| ());
    let tasks: Vec<_> = (0..8)
        .map(|seed| {
            let sampling = seeded(seed);
            let mut stream = engine.generate_text(TextRequest { sampling, ..story(&[]) }).unwrap();
            tokio::spawn(async move {
                let mut text = String::new();
                while let Some(reply) = stream.next().await {
                    match reply {
                        TextReply::Delta { text: piece, .. } => text += &piece,
                        TextReply::Finished { .. } => return text,
                        TextReply::Failed(error) => panic!("{error}"),
                    }
                }
                panic!("a stream ends with an end")
            })
        })
        .collect();
    for (seed, task) in tasks.into_iter().enumerate() {
        let together = task.await.unwrap();
        let sampling = seeded(seed as u64);
        let engine = engine.clone();
        let alone = tokio::task::spawn_blocking(move || {
            listen(engine.generate_text(TextRequest { sampling, ..story(&[]) }).unwrap()).0
        });
        assert_eq!(together, alone.await.unwrap());
    }
    assert_eq!(engine.stats().finished, 16);
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let engine = load(|_| ());
    let started = Instant::now();
    let other = engine.clone();
    drop(engine);
    assert_eq!(tokens(&other, request(vec![5], Sampling::greedy(), 3)).len(), 3);
    other.shutdown();
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(matches!(other.submit(request(vec![5], Sampling::greedy(), 3)), Err(EngineError::ShuttingDown)));
}

#[test]
fn what_is_loaded() {
    let engine = load(|options| options.context = Some(200));
    let info = engine.info();
    assert_eq!((info.architecture.as_str(), info.vocab, info.layers), ("qwen3_moe", 4096, 6));
    assert_eq!((info.context, info.model_context), (200, 1024));
    assert_eq!(info.kv_blocks, (16 * 200_usize).div_ceil(16));
    assert_eq!(info.end_tokens, [0, 2]);
    assert_eq!(engine.generation_defaults().sampling().top_k, 40);
    let error = engine.submit(request(vec![5; 200], Sampling::greedy(), 1)).unwrap_err();
    assert!(error.to_string().contains("at most 199 tokens"), "{error}");
    assert!(serde_json::to_value(info).unwrap().get("weight_format").is_some());

    let missing = Engine::load(EngineOptions { model: "no-such-model".into(), ..EngineOptions::default() });
    assert!(matches!(missing, Err(EngineError::Weights(_))));
}
