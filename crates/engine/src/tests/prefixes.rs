//! The prefix cache between requests: what is found, by whom, and that it is what would have been computed.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::engine::{SETUP, Setup, collect, engine, finished, request, settled, start};
use super::history::{Fault, History, expected};
use crate::block_pool::BlockPool;
use crate::scheduler::{Limits, Plan, Scheduler};
use crate::sequence::{Sequence, SequenceId, Sharing};
use crate::{Engine, EngineError, Reply, Request};

/// Tokens that were found for a request, whose output is checked.
fn cached(engine: &Engine, prompt: &[u32], seed: u64, tokens: usize) -> usize {
    let (output, _, usage) = finished(engine.submit(request(prompt, seed, tokens)).unwrap());
    assert_eq!(output, expected(prompt, seed, tokens));
    usage.cached_tokens
}

#[test]
fn a_prompt_is_found_again_but_for_its_last_token() {
    for depth in [1, 2] {
        let engine = engine(Setup { depth, ..SETUP });
        let prompt: Vec<u32> = (1..=12).collect();
        assert_eq!(cached(&engine, &prompt, 1, 3), 0);
        assert_eq!(cached(&engine, &prompt, 1, 3), 8, "the last token is computed, and its block with it");
        assert_eq!(cached(&engine, &[&prompt[..], &[99]].concat(), 2, 3), 12);
        assert_eq!(cached(&engine, &[&prompt[..6], &[99; 6]].concat(), 2, 3), 4, "up to where they differ");
        assert_eq!(cached(&engine, &prompt[1..], 1, 3), 0, "at other positions it is something else");
        let stats = engine.stats();
        assert_eq!(
            (stats.prefix_cache_queries, stats.prefix_cache_hits),
            (12 + 12 + 13 + 12 + 11, 8 + 12 + 4)
        );
        settled(&engine);
    }
}

#[test]
fn a_dialogue_finds_what_was_generated_too() {
    for depth in [1, 2] {
        let engine = engine(Setup { depth, ..SETUP });
        let mut dialogue: Vec<u32> = (1..=9).collect();
        let mut before = 0;
        for turn in 0..4 {
            let answer = expected(&dialogue, 7, 11);
            // The last token of an answer was never computed: it is the first that the next turn computes.
            assert_eq!(cached(&engine, &dialogue, 7, 11), before / 4 * 4, "turn {turn}");
            dialogue.extend(answer);
            before = dialogue.len() - 1;
            dialogue.extend([500 + turn; 3]);
        }
        settled(&engine);
    }
}

#[test]
fn a_surplus_row_leaves_nothing_behind() {
    // The output ends at a stop token, which is known one step late: its own row is under way by then.
    let prompt = [1, 2, 3];
    let all = expected(&prompt, 5, 12);
    for (depth, stop) in [1, 2].into_iter().flat_map(|depth| (1..12).map(move |stop| (depth, stop))) {
        let engine = engine(Setup { depth, ..SETUP });
        let stopping = Request { stop_tokens: vec![all[stop]], ..request(&prompt, 5, 12) };
        let (output, ..) = finished(engine.submit(stopping).unwrap());
        let computed = prompt.len() + output.len();
        // Whoever goes on with it finds what was computed before the end, whatever the surplus row wrote.
        let next = [&prompt[..], &output, &[900; 9]].concat();
        assert_eq!(cached(&engine, &next, 8, 5), computed / 4 * 4, "stop {stop}");
        settled(&engine);
    }
}

#[test]
fn running_requests_share() {
    let engine = engine(Setup { blocks: 24, max_batch_tokens: 64, ..SETUP });
    let prompt: Vec<u32> = (1..=40).collect();
    let mut first = engine.submit(request(&prompt, 1, 20)).unwrap();
    assert!(matches!(first.blocking_next(), Some(Reply::Token(_))));
    // Three more would not fit, each for itself.
    let others: Vec<_> = (2..5).map(|seed| engine.submit(request(&prompt, seed, 2)).unwrap()).collect();
    for (seed, other) in (2..5).zip(others) {
        let (output, _, usage) = finished(other);
        assert_eq!((output, usage.cached_tokens), (expected(&prompt, seed, 2), 36));
    }
    assert_eq!(finished(first).0, expected(&prompt, 1, 20)[1..]);
    assert_eq!(engine.stats().preemptions, 0);
    settled(&engine);
}

#[test]
fn a_salt_keeps_others_out() {
    let engine = engine(SETUP);
    let prompt: Vec<u32> = (1..=12).collect();
    let salted = |salt: Option<&str>| {
        let cache_salt = salt.map(Into::into);
        let salted = Request { cache_salt, ..request(&prompt, 1, 1) };
        finished(engine.submit(salted).unwrap()).2.cached_tokens
    };
    let found = [None, Some("a"), Some("b"), Some("a"), None, Some("")].map(salted);
    assert_eq!(found, [0, 0, 0, 8, 8, 8]);
    settled(&engine);
}

#[test]
fn logits_are_all_computed_and_leave_nothing() {
    let engine = engine(SETUP);
    let ids: Vec<u32> = (1..=20).collect();
    assert_eq!(engine.logits(&ids).unwrap(), engine.logits(&ids).unwrap());
    assert_eq!(cached(&engine, &ids, 1, 1), 0);
    assert_eq!(engine.logits(&ids).unwrap().len() / super::history::VOCAB, 20);
    assert_eq!(engine.stats().prefix_cache_queries, 20);
    settled(&engine);
}

#[test]
fn a_failed_step_leaves_nothing() {
    for (fault, depth) in [Fault::Error, Fault::Damage, Fault::Panic].into_iter().zip([1, 2, 2]) {
        let setup = Setup { depth, max_batch_tokens: 8, ..SETUP };
        let engine = start(setup, History::new(SETUP.block_size).fault(666, fault));
        // Two steps of eight tokens; the second fails, behind two blocks that are good.
        let prompt: Vec<u32> = (1..=11).chain([666]).collect();
        for found in [0, 8] {
            let (tokens, end) = collect(engine.submit(request(&prompt, 1, 5)).unwrap());
            assert!(tokens.is_empty() && matches!(end, Reply::Failed(_)));
            assert_eq!(engine.stats().prefix_cache_hits, found);
            assert_eq!(engine.stats().kv_blocks_cached, 2);
        }
        assert_eq!(cached(&engine, &[&prompt[..11], &[7; 9]].concat(), 1, 5), 8);
        settled(&engine);
    }
}

#[test]
fn a_lost_device_has_lost_it() {
    let engine = start(SETUP, History::new(SETUP.block_size).fault(666, Fault::Lost));
    assert_eq!(cached(&engine, &[5; 13], 1, 1), 0);
    assert_eq!(engine.stats().kv_blocks_cached, 3);
    let (_, end) = collect(engine.submit(request(&[666], 1, 5)).unwrap());
    assert!(matches!(end, Reply::Failed(EngineError::DeviceLost { .. })));
    while engine.stats().kv_blocks_cached > 0 {
        std::thread::yield_now();
    }
    settled(&engine);
}

#[test]
fn switched_off_nothing_is_kept() {
    let engine = engine(Setup { prefix_cache: false, ..SETUP });
    let prompt: Vec<u32> = (1..=12).collect();
    assert_eq!([cached(&engine, &prompt, 1, 3), cached(&engine, &prompt, 1, 3)], [0, 0]);
    let stats = engine.stats();
    assert_eq!((stats.prefix_cache_queries, stats.kv_blocks_free), (0, stats.kv_blocks_total));
    settled(&engine);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Requests that begin alike give what they give alone, with little room, cancellations and failures among them.
    #[test]
    fn output_does_not_depend_on_what_is_cached(
        requests in prop::collection::vec(
            (0_usize..30, 1_usize..12, 0_u32..3, 1_usize..25, prop::option::weighted(0.2, 0_usize..6), prop::bool::weighted(0.1)),
            1..16,
        ),
        max_sequences in 1_usize..6,
        max_batch_tokens in 1_usize..20,
        block_size in 1_usize..6,
        spare in 0_usize..12,
        depth in 1_usize..3,
    ) {
        let blocks = 70_usize.div_ceil(block_size) + spare;
        let setup = Setup { max_sequences, max_batch_tokens, max_queue: 100, blocks, block_size, depth, prefix_cache: true };
        let engine = start(setup, History::new(block_size).fault(666, Fault::Error));
        let streams: Vec<_> = requests
            .iter()
            .map(|(shared, own, kind, output, _, fails)| {
                let ends = if *fails { 666 } else { 600 };
                let prompt: Vec<u32> = (0..*shared as u32).chain((0..*own as u32).map(|_| 800 + kind)).chain([ends]).collect();
                (engine.submit(request(&prompt, 3, *output)).unwrap(), prompt)
            })
            .collect();
        for ((mut stream, prompt), (.., output, cancelled_after, fails)) in streams.into_iter().zip(&requests) {
            if *fails {
                let failed = matches!(collect(stream).1, Reply::Failed(EngineError::Device(_)));
                prop_assert!(failed);
                continue;
            }
            let expected = expected(&prompt, 3, *output);
            if let Some(after) = cancelled_after {
                for token in expected.iter().take(*after) {
                    match stream.blocking_next() {
                        Some(Reply::Token(got)) => prop_assert_eq!(got.id, *token),
                        // A step that it shared with one that fails.
                        Some(Reply::Failed(EngineError::Device(_))) => break,
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                drop(stream);
                continue;
            }
            match collect(stream) {
                (tokens, Reply::Finished { usage, .. }) => {
                    prop_assert_eq!(tokens, expected);
                    prop_assert!(usage.cached_tokens < prompt.len() && usage.cached_tokens % block_size == 0);
                }
                (tokens, Reply::Failed(EngineError::Device(_))) => prop_assert_eq!(&tokens, &expected[..tokens.len()]),
                (_, other) => prop_assert!(false, "{:?}", other),
            }
        }
        settled(&engine);
    }
}

/// What happens next in a random schedule.
#[derive(Clone, Debug)]
enum Event {
    /// A sequence arrives: so many tokens of a common beginning, so many of its own kind, and its output.
    Arrives(usize, usize, u32, usize),
    /// One of those inside leaves.
    Leaves(usize),
    /// A step is submitted, if there is room for one.
    Submitted,
    /// The oldest step completes.
    Completed,
    /// It fails, and its sequences with it, or it is to be made again.
    Failed { ends: bool },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let arrives = (0_usize..20, 1_usize..8, 0_u32..3, 1_usize..16)
        .prop_map(|(shared, own, kind, output)| Event::Arrives(shared, own, kind, output));
    let event = prop_oneof![
        2 => arrives,
        1 => (0_usize..8).prop_map(Event::Leaves),
        6 => Just(Event::Submitted),
        6 => Just(Event::Completed),
        1 => any::<bool>().prop_map(|ends| Event::Failed { ends }),
    ];
    prop::collection::vec(event, 1..160)
}

/// A scheduler whose steps run on a device that knows what was written where.
struct Simulation {
    scheduler: Scheduler,
    block_size: usize,
    /// What each row of the cache was computed from: all tokens up to its own.
    rows: HashMap<u32, Vec<u32>>,
    /// The tokens of each sequence as the device knows them, and how many it may have.
    sequences: HashMap<SequenceId, (Vec<u32>, usize)>,
    under_way: VecDeque<(Plan, Vec<SequenceId>)>,
    found: usize,
}

impl Simulation {
    fn draws(&self, plan: &Plan) -> Vec<SequenceId> {
        plan.chunks.iter().filter(|chunk| chunk.last).map(|chunk| chunk.id).collect()
    }

    fn submit(&mut self) {
        if self.under_way.len() >= 2 || self.scheduler.is_idle() {
            return;
        }
        let plan = self.scheduler.schedule();
        self.found += plan.found.iter().map(|(_, tokens)| tokens).sum::<usize>();
        if plan.chunks.is_empty() {
            assert!(!self.under_way.is_empty(), "work moves forward");
            return;
        }
        for chunk in &plan.chunks {
            let (tokens, _) = &self.sequences[&chunk.id];
            let blocks = &self.scheduler.running(chunk.id).unwrap().blocks;
            let slot = |position: usize| {
                blocks[position / self.block_size] * self.block_size as u32
                    + (position % self.block_size) as u32
            };
            for position in 0..chunk.start {
                assert_eq!(self.rows[&slot(position)], tokens[..=position], "{:?} reads", chunk.id);
            }
            for position in chunk.start..chunk.start + chunk.len {
                self.rows.insert(slot(position), tokens[..=position].to_vec());
            }
        }
        let draws = self.draws(&plan);
        self.scheduler.advance(&plan, &draws);
        for id in &draws {
            let (tokens, _) = self.sequences.get_mut(id).unwrap();
            let sum = tokens.iter().fold(7_u32, |sum, token| sum.wrapping_mul(31).wrapping_add(*token));
            tokens.push(sum % 3);
        }
        self.under_way.push_back((plan, draws));
    }

    fn complete(&mut self) {
        let Some((plan, draws)) = self.under_way.pop_front() else { return };
        self.scheduler.settle(&plan);
        for id in draws {
            let Some((tokens, most)) = self.sequences.get(&id) else { continue };
            let behind = self.under_way.iter().filter(|(_, draws)| draws.contains(&id)).count();
            let at = tokens.len() - 1 - behind;
            self.scheduler.learn(id, tokens[at]);
            // By length, or by a token that is a stop token at some positions.
            if at + 1 >= *most || (tokens[at] == 0 && at % 5 == 0) {
                self.remove(id);
            }
        }
    }

    fn fail(&mut self, ends: bool) {
        let steps: Vec<_> = self.under_way.drain(..).collect();
        for (plan, draws) in steps.iter().rev() {
            self.scheduler.rewind(plan, draws);
            for id in draws {
                if let Some((tokens, _)) = self.sequences.get_mut(id) {
                    tokens.pop();
                }
            }
        }
        if let (Some((plan, _)), true) = (steps.first(), ends) {
            plan.chunks.iter().for_each(|chunk| self.remove(chunk.id));
        }
    }

    fn remove(&mut self, id: SequenceId) {
        self.sequences.remove(&id);
        self.scheduler.remove(id);
    }

    fn check(&self) {
        assert_eq!(self.scheduler.check_integrity(), Ok(()));
        let pool = self.scheduler.pool();
        assert_eq!(pool.free() + pool.cached() + pool.used(), pool.total());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_row_that_is_read_is_what_its_reader_would_have_computed(
        events in events(),
        max_sequences in 1_usize..6,
        max_batch_tokens in 1_usize..24,
        blocks in 8_usize..32,
        block_size in 1_usize..6,
    ) {
        let pool = BlockPool::new(blocks, block_size).caching();
        let scheduler = Scheduler::new(Limits { max_sequences, max_batch_tokens }, pool);
        let (rows, sequences) = (HashMap::new(), HashMap::new());
        let mut simulation = Simulation { scheduler, block_size, rows, sequences, under_way: VecDeque::new(), found: 0 };
        for (id, event) in events.into_iter().enumerate() {
            let id = SequenceId(id as u64);
            match event {
                Event::Arrives(shared, own, kind, output) => {
                    let prompt: Vec<u32> = (0..shared as u32).map(|at| at % 3).chain(std::iter::repeat_n(kind, own)).collect();
                    let most = prompt.len() + output;
                    let sequence = Sequence::new(id, prompt.clone(), most).sharing(Sharing::Under("".into()));
                    if simulation.scheduler.add(sequence).is_ok() {
                        simulation.sequences.insert(id, (prompt, most));
                    }
                }
                Event::Leaves(number) => {
                    let mut inside: Vec<_> = simulation.sequences.keys().copied().collect();
                    inside.sort_unstable();
                    if let Some(id) = inside.get(number) {
                        simulation.remove(*id);
                    }
                }
                Event::Submitted => simulation.submit(),
                Event::Completed => simulation.complete(),
                Event::Failed { ends } => simulation.fail(ends),
            }
            simulation.check();
        }
        let mut steps = 0;
        while !simulation.scheduler.is_idle() || !simulation.under_way.is_empty() {
            simulation.submit();
            simulation.complete();
            simulation.check();
            steps += 1;
            prop_assert!(steps < 10_000, "a schedule never ends");
        }
        prop_assert_eq!(simulation.scheduler.pool().used(), 0);
        simulation.scheduler.clear_cache();
        prop_assert_eq!(simulation.scheduler.pool().free(), blocks);
    }
}
