//! Random schedules: whatever arrives, ends or is cancelled when, the rules of the scheduler hold after every call.

use proptest::prelude::*;

use crate::block_pool::BlockPool;
use crate::scheduler::{Chunk, Limits, Plan, Scheduler};
use crate::sequence::{Sequence, SequenceId};

/// One request of a random schedule.
#[derive(Clone, Debug)]
struct Arrival {
    /// The step before which it arrives.
    at: usize,
    prompt: usize,
    output: usize,
    /// Steps after its arrival at which it is cancelled.
    cancelled_after: Option<usize>,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0_usize..40, 1_usize..40, 1_usize..30, prop::option::weighted(0.2, 0_usize..30))
        .prop_map(|(at, prompt, output, cancelled_after)| Arrival { at, prompt, output, cancelled_after });
    prop::collection::vec(arrival, 1..14).prop_map(|mut all| {
        all.sort_by_key(|arrival| arrival.at);
        all
    })
}

fn add(scheduler: &mut Scheduler, id: u64, prompt: usize, output: usize) -> bool {
    scheduler.add(Sequence::new(SequenceId(id), vec![7; prompt], prompt + output)).is_ok()
}

/// Computes a plan and draws a token for every sequence that is due.
fn run(scheduler: &mut Scheduler, plan: &Plan) {
    let draws = draws(plan);
    scheduler.advance(plan, &draws);
    for id in draws {
        scheduler.learn(id, 7);
    }
}

fn draws(plan: &Plan) -> Vec<SequenceId> {
    plan.chunks.iter().filter(|chunk| chunk.last).map(|chunk| chunk.id).collect()
}

fn lengths(plan: &Plan) -> Vec<(u64, usize, usize, bool)> {
    plan.chunks.iter().map(|Chunk { id, start, len, last }| (id.0, *start, *len, *last)).collect()
}

fn scheduler(max_sequences: usize, max_batch_tokens: usize, blocks: usize, block_size: usize) -> Scheduler {
    Scheduler::new(Limits { max_sequences, max_batch_tokens }, BlockPool::new(blocks, block_size))
}

#[test]
fn prefill_is_cut_and_decodes_come_first() {
    let mut scheduler = scheduler(4, 6, 100, 4);
    add(&mut scheduler, 0, 4, 9);
    add(&mut scheduler, 1, 9, 9);
    let plan = scheduler.schedule();
    assert_eq!(lengths(&plan), [(0, 0, 4, true), (1, 0, 2, false)]);
    run(&mut scheduler, &plan);
    let plan = scheduler.schedule();
    assert_eq!(lengths(&plan), [(0, 4, 1, true), (1, 2, 5, false)]);
    run(&mut scheduler, &plan);
    let plan = scheduler.schedule();
    assert_eq!(lengths(&plan), [(0, 5, 1, true), (1, 7, 2, true)]);
}

#[test]
fn prefill_moves_on_however_many_decode() {
    let mut scheduler = scheduler(4, 1, 100, 4);
    for id in 0..3 {
        add(&mut scheduler, id, 1, 50);
        let plan = scheduler.schedule();
        run(&mut scheduler, &plan);
    }
    add(&mut scheduler, 3, 10, 5);
    for position in 0..10 {
        let plan = scheduler.schedule();
        assert_eq!(lengths(&plan).last(), Some(&(3, position, 1, position == 9)));
        assert_eq!(plan.chunks.len(), 4);
        run(&mut scheduler, &plan);
    }
}

#[test]
fn the_youngest_goes_and_comes_back_first() {
    let mut scheduler = scheduler(4, 64, 6, 2);
    add(&mut scheduler, 0, 4, 8);
    add(&mut scheduler, 1, 4, 8);
    add(&mut scheduler, 2, 2, 2);
    // Two blocks each, and one spare for each that runs: the third has to wait.
    let plan = scheduler.schedule();
    assert_eq!(lengths(&plan), [(0, 0, 4, true), (1, 0, 4, true)]);
    let mut plan = plan;
    while plan.preempted.is_empty() {
        run(&mut scheduler, &plan);
        plan = scheduler.schedule();
    }
    assert_eq!(plan.preempted, [SequenceId(1)]);
    assert_eq!(lengths(&plan), [(0, 6, 1, true)]);
    scheduler.remove(SequenceId(0));
    // Its prompt and what it had generated are computed again, before anybody younger.
    assert_eq!(lengths(&scheduler.schedule()), [(1, 0, 7, true), (2, 0, 2, true)]);
}

#[test]
fn what_can_never_fit_is_refused() {
    let mut scheduler = scheduler(4, 64, 3, 4);
    assert!(!add(&mut scheduler, 0, 4, 9));
    assert!(add(&mut scheduler, 1, 4, 8));
    assert_eq!((scheduler.waiting_len(), scheduler.running_len()), (1, 0));
}

proptest! {
    #[test]
    fn every_schedule_keeps_the_rules(
        arrivals in arrivals(),
        max_sequences in 1_usize..6,
        max_batch_tokens in 1_usize..24,
        blocks in 1_usize..24,
        block_size in 1_usize..9,
    ) {
        let mut scheduler = scheduler(max_sequences, max_batch_tokens, blocks, block_size);
        let mut outcome: Vec<Option<&str>> = vec![None; arrivals.len()];
        let mut admitted = Vec::new();
        let mut step = 0;
        loop {
            for (id, arrival) in arrivals.iter().enumerate() {
                if arrival.at == step && !add(&mut scheduler, id as u64, arrival.prompt, arrival.output) {
                    prop_assert!((arrival.prompt + arrival.output).div_ceil(block_size) > blocks);
                    outcome[id] = Some("refused");
                }
                let cancel = arrival.cancelled_after.is_some_and(|after| arrival.at + after == step);
                if cancel && scheduler.remove(SequenceId(id as u64)).is_some() {
                    prop_assert_eq!(outcome[id].replace("cancelled"), None);
                }
            }
            prop_assert_eq!(scheduler.check_integrity(), Ok(()));
            if scheduler.is_idle() && step > 80 {
                break;
            }

            let plan = scheduler.schedule();
            prop_assert_eq!(scheduler.check_integrity(), Ok(()));
            let rows: usize = plan.chunks.iter().map(|chunk| chunk.len).sum();
            prop_assert!(rows <= max_batch_tokens.max(max_sequences), "{} rows", rows);
            prop_assert!(scheduler.running_len() <= max_sequences);
            prop_assert_eq!(plan.chunks.is_empty(), scheduler.is_idle(), "work moves forward");
            for chunk in &plan.chunks {
                let sequence = scheduler.running(chunk.id).unwrap();
                prop_assert_eq!(chunk.start, sequence.computed);
                prop_assert!(chunk.len >= 1 && chunk.start + chunk.len <= sequence.blocks.len() * block_size);
                prop_assert_eq!(chunk.last, chunk.start + chunk.len == sequence.tokens().len());
                if chunk.start == 0 && !admitted.contains(&chunk.id) {
                    prop_assert!(admitted.last().is_none_or(|last| *last < chunk.id), "first come, first served");
                    admitted.push(chunk.id);
                }
            }
            // Every running decode is served in every step, and the oldest prefill too.
            let served = |id: SequenceId| plan.chunks.iter().any(|chunk| chunk.id == id);
            let ids = (0..arrivals.len() as u64).map(SequenceId);
            let running: Vec<_> = ids.filter_map(|id| scheduler.running(id)).collect();
            let mut decodes = running.iter().filter(|sequence| sequence.pending() == 1);
            prop_assert!(decodes.all(|sequence| served(sequence.id)));
            if let Some(prefill) = running.iter().find(|sequence| sequence.pending() > 1) {
                prop_assert!(served(prefill.id));
            }

            run(&mut scheduler, &plan);
            for chunk in plan.chunks.iter().filter(|chunk| chunk.last) {
                let id = chunk.id.0 as usize;
                if scheduler.running(chunk.id).unwrap().generated().len() == arrivals[id].output {
                    scheduler.remove(chunk.id);
                    prop_assert_eq!(outcome[id].replace("finished"), None);
                }
            }
            step += 1;
            prop_assert!(step < 20_000, "a schedule never ends");
        }
        prop_assert!(outcome.iter().all(Option::is_some), "{:?}", outcome);
        prop_assert_eq!(scheduler.pool().free(), blocks);
    }
}
