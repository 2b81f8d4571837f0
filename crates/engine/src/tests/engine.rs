//! The thread, the handle and the streams over the [`History`] network.

use std::time::Duration;

use proptest::prelude::*;

use super::history::{Fault, History, VOCAB, expected, logits};
use crate::block_pool::BlockPool;
use crate::engine::Parts;
use crate::scheduler::{Limits, Scheduler};
use crate::validate::Bounds;
use crate::{
    Engine, EngineError, EngineInfo, FinishReason, GenerationDefaults, Reply, ReplyStream, Request, Sampling,
    Usage,
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) max_sequences: usize,
    pub(super) max_batch_tokens: usize,
    pub(super) max_queue: usize,
    pub(super) blocks: usize,
    pub(super) block_size: usize,
    /// Steps under way at once.
    pub(super) depth: usize,
    pub(super) prefix_cache: bool,
}

pub(super) const SETUP: Setup = Setup {
    max_sequences: 4,
    max_batch_tokens: 16,
    max_queue: 100,
    blocks: 64,
    block_size: 4,
    depth: 2,
    prefix_cache: true,
};

pub(super) fn start(setup: Setup, network: History) -> Engine {
    let Setup { max_sequences, max_batch_tokens, max_queue, blocks, block_size, depth, prefix_cache } = setup;
    let context = (blocks * block_size).min(200);
    let parts = Parts {
        info: EngineInfo { max_sequences, max_queue, context, ..EngineInfo::default() },
        defaults: GenerationDefaults::default(),
        bounds: Bounds { vocab: VOCAB, context, kv_tokens: blocks * block_size },
        tokenizer: None,
        chat_template: None,
        runtime: None,
    };
    let pool = BlockPool::new(blocks, block_size);
    let pool = if prefix_cache { pool.caching() } else { pool };
    let scheduler = Scheduler::new(Limits { max_sequences, max_batch_tokens }, pool);
    Engine::start(parts, Box::new(network.depth(depth)), scheduler, None).unwrap()
}

pub(super) fn engine(setup: Setup) -> Engine {
    start(setup, History::new(setup.block_size))
}

pub(super) fn request(prompt: &[u32], seed: u64, tokens: usize) -> Request {
    let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
    Request { prompt: prompt.to_vec(), sampling, max_tokens: Some(tokens), ..Request::default() }
}

/// All tokens and the one end; panics when something follows it.
pub(super) fn collect(mut stream: ReplyStream) -> (Vec<u32>, Reply) {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next().expect("a stream ends with an end") {
            Reply::Token(token) => tokens.push(token.id),
            end => {
                assert!(stream.blocking_next().is_none());
                return (tokens, end);
            }
        }
    }
}

pub(super) fn finished(stream: ReplyStream) -> (Vec<u32>, FinishReason, Usage) {
    match collect(stream) {
        (tokens, Reply::Finished { reason, usage }) => (tokens, reason, usage),
        (_, other) => panic!("{other:?}"),
    }
}

pub(super) fn settled(engine: &Engine) {
    assert!(engine.drain(Duration::from_secs(20)));
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.kv_blocks_free + stats.kv_blocks_cached, stats.kv_blocks_total);
    assert_eq!(stats.requests, stats.finished + stats.cancelled + stats.failed, "{stats:?}");
    engine.shutdown();
}

#[test]
fn one_request() {
    let engine = engine(SETUP);
    let (tokens, reason, usage) = finished(engine.submit(request(&[1, 2, 3], 9, 20)).unwrap());
    assert_eq!(tokens, expected(&[1, 2, 3], 9, 20));
    let used = Usage { prompt_tokens: 3, completion_tokens: 20, cached_tokens: 0 };
    assert_eq!((reason, usage), (FinishReason::Length, used));
    settled(&engine);
}

#[test]
fn the_context_ends_an_output() {
    let engine = engine(Setup { blocks: 5, ..SETUP });
    let endless = Request { max_tokens: None, ..request(&[5; 12], 1, 1) };
    let (tokens, reason, _) = finished(engine.submit(endless).unwrap());
    assert_eq!((tokens.len(), reason), (8, FinishReason::Length));
    let error = engine.submit(request(&[5; 20], 1, 1)).unwrap_err().to_string();
    assert!(error.contains("at most 19 tokens") && error.contains("kv_memory"), "{error}");
    settled(&engine);
}

#[test]
fn stop_tokens_end_without_being_emitted() {
    let engine = engine(SETUP);
    let all = expected(&[4, 4], 3, 10);
    let stop = Request { stop_tokens: vec![all[6]], ..request(&[4, 4], 3, 10) };
    let (tokens, reason, usage) = finished(engine.submit(stop).unwrap());
    let before = all.iter().position(|token| *token == all[6]).unwrap();
    assert_eq!(tokens, all[..before]);
    assert_eq!((reason, usage.completion_tokens), (FinishReason::Stop, before));
    settled(&engine);
}

#[test]
fn a_failed_step_fails_only_its_requests() {
    let faults = [Fault::Error, Fault::Damage, Fault::Panic];
    for (fault, depth) in faults.into_iter().flat_map(|fault| [(fault, 1), (fault, 2)]) {
        let engine = start(Setup { depth, ..SETUP }, History::new(SETUP.block_size).fault(666, fault));
        for _ in 0..3 {
            let (tokens, end) = collect(engine.submit(request(&[1, 666], 1, 5)).unwrap());
            assert!(tokens.is_empty());
            match (fault, end) {
                (Fault::Error | Fault::Damage, Reply::Failed(EngineError::Device(_))) => {}
                (Fault::Panic, Reply::Failed(EngineError::Step { reason })) => {
                    assert_eq!(reason, "as ordered by the test");
                }
                (_, other) => panic!("{other:?}"),
            }
            let (tokens, ..) = finished(engine.submit(request(&[2], 2, 5)).unwrap());
            assert_eq!(tokens, expected(&[2], 2, 5));
        }
        assert_eq!((engine.stats().failed, engine.stats().failed_steps), (3, 3));
        settled(&engine);
    }
}

#[test]
fn a_step_that_can_fall_back_is_run_again_and_nobody_notices() {
    for depth in [1, 2] {
        let all = expected(&[4, 4], 3, 30);
        let network = History::new(SETUP.block_size).fault(all[11], Fault::Optional);
        let engine = start(Setup { depth, ..SETUP }, network);
        let other = engine.submit(request(&[9], 2, 60)).unwrap();
        let (tokens, reason, usage) = finished(engine.submit(request(&[4, 4], 3, 30)).unwrap());
        assert_eq!((tokens, reason, usage.completion_tokens), (all, FinishReason::Length, 30));
        assert_eq!(finished(other).0, expected(&[9], 2, 60));
        let stats = engine.stats();
        assert_eq!((stats.failed, stats.failed_steps, stats.repeated_steps), (0, 1, 1));
        settled(&engine);
    }
}

#[test]
fn cancelled_requests_leave_at_once() {
    let engine = engine(Setup { blocks: 1 << 16, block_size: 1, ..SETUP });
    let mut kept = engine.submit(Request { max_tokens: None, ..request(&[1], 1, 1) }).unwrap();
    assert!(matches!(kept.blocking_next(), Some(Reply::Token(_))));
    kept.cancel();
    let (tokens, reason, usage) = finished(kept);
    // The context may have ended it before the cancellation was seen.
    assert!(matches!(reason, FinishReason::Cancelled | FinishReason::Length));
    assert_eq!(tokens.len() + 1, usage.completion_tokens);
    drop(engine.submit(Request { max_tokens: None, ..request(&[1], 1, 1) }).unwrap());
    settled(&engine);
}

#[test]
fn draining_refuses_and_finishes() {
    let engine = engine(SETUP);
    let stream = engine.submit(request(&[3], 3, 150)).unwrap();
    assert!(engine.drain(Duration::from_secs(20)));
    assert!(matches!(engine.submit(request(&[3], 3, 1)), Err(EngineError::ShuttingDown)));
    assert_eq!(finished(stream).0, expected(&[3], 3, 150));
    settled(&engine);
}

#[test]
fn shutdown_ends_every_stream() {
    let engine = engine(Setup { max_sequences: 1, ..SETUP });
    let streams: Vec<_> = (0..50)
        .map(|_| engine.submit(Request { max_tokens: None, ..request(&[3], 3, 1) }).unwrap())
        .collect();
    engine.shutdown();
    for stream in streams {
        assert!(matches!(
            collect(stream).1,
            Reply::Finished { .. } | Reply::Failed(EngineError::ShuttingDown)
        ));
    }
    assert!(matches!(engine.logits(&[1]), Err(EngineError::ShuttingDown)));
    engine.shutdown();
}

#[test]
fn streams_outlive_the_handle() {
    let stream = engine(SETUP).submit(request(&[8, 9], 5, 100)).unwrap();
    assert_eq!(finished(stream).0, expected(&[8, 9], 5, 100));
}

#[test]
fn logits_beside_generation() {
    let engine = engine(Setup { blocks: 20, ..SETUP });
    let streams: Vec<_> =
        (1..6).map(|seed| engine.submit(request(&[seed as u32; 9], seed, 40)).unwrap()).collect();
    let ids: Vec<u32> = (1..71).collect();
    let all = engine.logits(&ids).unwrap();
    assert_eq!(all.len(), 70 * VOCAB);
    for (position, row) in all.chunks(VOCAB).enumerate() {
        assert_eq!(row, logits(&ids[..=position]));
    }
    for (seed, stream) in (1..6).zip(streams) {
        assert_eq!(finished(stream).0, expected(&[seed as u32; 9], seed, 40));
    }
    settled(&engine);
}

#[test]
fn invalid_requests_never_enter() {
    let engine = engine(SETUP);
    assert!(matches!(engine.submit(Request::default()), Err(EngineError::Invalid { field: "prompt", .. })));
    assert!(matches!(engine.logits(&[VOCAB as u32]), Err(EngineError::Invalid { field: "ids", .. })));
    assert_eq!(engine.stats().requests, 0);
    settled(&engine);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever shares the steps, and however often a sequence is preempted, its output is its own.
    #[test]
    fn output_does_not_depend_on_company(
        requests in prop::collection::vec((1_usize..30, 1_usize..25, 0_u64..4, prop::option::weighted(0.2, 0_usize..6)), 1..12),
        max_sequences in 1_usize..6,
        max_batch_tokens in 1_usize..20,
        block_size in 1_usize..6,
        spare in 0_usize..8,
        depth in 1_usize..3,
        prefix_cache in any::<bool>(),
    ) {
        let blocks = 56_usize.div_ceil(block_size) + spare;
        let setup = Setup { max_sequences, max_batch_tokens, max_queue: 100, blocks, block_size, depth, prefix_cache };
        let engine = engine(setup);
        let streams: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(at, (prompt, output, seed, _))| {
                let prompt: Vec<u32> = (0..*prompt as u32).map(|token| token * 7 + at as u32).collect();
                (engine.submit(request(&prompt, *seed, *output)).unwrap(), prompt)
            })
            .collect();
        for ((mut stream, prompt), (_, output, seed, cancelled_after)) in streams.into_iter().zip(&requests) {
            let expected = expected(&prompt, *seed, *output);
            if let Some(after) = cancelled_after {
                for token in expected.iter().take(*after) {
                    let matches = matches!(stream.blocking_next(), Some(Reply::Token(got)) if got.id == *token);
                    prop_assert!(matches);
                }
                drop(stream);
            } else {
                let (tokens, reason, usage) = finished(stream);
                prop_assert_eq!(tokens, expected);
                prop_assert_eq!(reason, FinishReason::Length);
                prop_assert_eq!((usage.prompt_tokens, usage.completion_tokens), (prompt.len(), *output));
            }
        }
        settled(&engine);
    }
}
