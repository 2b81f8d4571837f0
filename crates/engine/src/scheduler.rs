//! Which rows go into the next step.
//!
//! - **Decode first.** Every running sequence with one pending token gets its row in every step. Prefill fills up to
//!   `max_batch_tokens`, and at least one row, oldest sequence first. So neither starves the other, and a step has at
//!   most `max(max_batch_tokens, max_sequences)` rows.
//! - **First come, first served.** Sequences are admitted strictly in their order of arrival; nobody overtakes a large
//!   one at the front. All running sequences are therefore older than all waiting ones.
//! - **Blocks for all known tokens at admission**, so that prefill never fails half-way, with one block spare for each
//!   sequence that runs. Decode takes a block whenever it crosses a block's edge.
//! - **Preempt the youngest.** A decode that finds no free block takes those of the youngest running sequence, which
//!   goes back to the front of the queue and is recomputed later. The oldest is never preempted for another, and fits
//!   alone ([`Scheduler::add`] sees to it), so something always moves forward. The rejected option is to swap blocks
//!   out to the host: on a device that shares the host's memory it saves nothing.
//! - **What is there is not computed again.** A sequence that is admitted takes the blocks that others have filled with
//!   its first tokens (`prefix_cache`). A block may be taken when it is full and its step has completed
//!   ([`Scheduler::settle`]): steps under way write only behind what is settled, so never to a block that is shared.
//! - **One step ahead.** A plan counts as computed when its step is submitted ([`Scheduler::advance`]): the next plan may
//!   be made before the first has been read. When a step fails, its plan and those behind it are taken back
//!   ([`Scheduler::rewind`]).
//! - **Pure.** Nothing here knows a model or a clock; a plan is a function of the calls before.

use std::collections::VecDeque;

use crate::block_pool::{BlockPool, Found};
use crate::sequence::{Sequence, SequenceId, Sharing};

/// What one step may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sequences that run at once.
    pub(crate) max_sequences: usize,
    /// Rows that prefill may fill up to.
    pub(crate) max_batch_tokens: usize,
}

/// Consecutive tokens of one sequence that go through the network in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) id: SequenceId,
    /// Position of the first.
    pub(crate) start: usize,
    /// How many; at least one.
    pub(crate) len: usize,
    /// Whether the newest token of the sequence is among them, so that the next one can be drawn.
    pub(crate) last: bool,
}

/// One step: decodes, then prefill chunks; empty when nothing is to be done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) chunks: Vec<Chunk>,
    /// Sequences that lost their blocks while planning.
    pub(crate) preempted: Vec<SequenceId>,
    /// Sequences that share and run for the first time, and how many of their tokens were there.
    pub(crate) found: Vec<(SequenceId, usize)>,
}

/// All sequences and the blocks they hold.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    /// By age, oldest first; all younger than the running ones.
    waiting: VecDeque<Sequence>,
    /// By age, oldest first.
    running: Vec<Sequence>,
}

impl Scheduler {
    /// A scheduler with nothing to do.
    pub(crate) fn new(limits: Limits, pool: BlockPool) -> Self {
        Self { limits, pool, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Queues a sequence. It must be younger than all before.
    ///
    /// # Errors
    /// The sequence itself, when the pool could not hold it even alone.
    pub(crate) fn add(&mut self, sequence: Sequence) -> Result<(), Sequence> {
        if self.pool.blocks_for(sequence.most()) > self.pool.total() {
            return Err(sequence);
        }
        self.waiting.push_back(sequence);
        Ok(())
    }

    /// The next step. Blocks for its rows are taken; nothing else moves until [`Scheduler::advance`].
    pub(crate) fn schedule(&mut self) -> Plan {
        let mut plan = Plan { preempted: self.make_room(), ..Plan::default() };
        let decodes = self.running.iter().filter(|sequence| sequence.pending() == 1);
        plan.chunks.extend(decodes.map(|sequence| chunk(sequence, 1)));

        let mut rows = self.limits.max_batch_tokens.saturating_sub(plan.chunks.len()).max(1);
        for sequence in self.running.iter().filter(|sequence| sequence.pending() > 1) {
            take(sequence, &mut rows, &mut plan);
        }
        // Whoever has just lost its blocks would only take back what an older sequence is about to need.
        if plan.preempted.is_empty() {
            while rows > 0 && self.admit(&mut plan) {
                if let Some(sequence) = self.running.last() {
                    take(sequence, &mut rows, &mut plan);
                }
            }
        }
        plan
    }

    /// Counts the tokens of a plan that was submitted as computed; draw `i` of it gives the next token of `draws[i]`.
    pub(crate) fn advance(&mut self, plan: &Plan, draws: &[SequenceId]) {
        for chunk in &plan.chunks {
            if let Some(sequence) = self.running_mut(chunk.id) {
                sequence.computed = chunk.start + chunk.len;
            }
        }
        for (draw, id) in (0..).zip(draws) {
            if let Some(sequence) = self.running_mut(*id) {
                sequence.expect(draw);
            }
        }
    }

    /// Takes back what [`Scheduler::advance`] did; of several plans the last one first.
    pub(crate) fn rewind(&mut self, plan: &Plan, draws: &[SequenceId]) {
        for chunk in &plan.chunks {
            if let Some(sequence) = self.running_mut(chunk.id) {
                sequence.computed = sequence.computed.min(chunk.start);
            }
        }
        for id in draws {
            if let Some(sequence) = self.sequence_mut(*id) {
                sequence.forget();
            }
        }
    }

    /// The step of a plan has completed: what it filled may be found by others.
    pub(crate) fn settle(&mut self, plan: &Plan) {
        let block_size = self.pool.block_size();
        for chunk in &plan.chunks {
            let Ok(at) = self.running.binary_search_by_key(&chunk.id, |sequence| sequence.id) else {
                continue;
            };
            let Some(sequence) = self.running.get_mut(at).filter(|sequence| sequence.settled == chunk.start)
            else {
                continue;
            };
            let settled = (chunk.start + chunk.len).min(sequence.known().len());
            let filled = sequence.settled / block_size..settled / block_size;
            sequence.settled = settled;
            if let (Sharing::Under(salt), false) = (&sequence.sharing, filled.is_empty()) {
                let mut blocks = std::mem::take(&mut sequence.blocks);
                self.pool.keep(salt, sequence.known(), &mut blocks, filled);
                sequence.blocks = blocks;
            }
        }
    }

    /// Forgets all that is cached: the device has lost it.
    pub(crate) fn clear_cache(&mut self) {
        self.pool.clear_cache();
    }

    /// Fills in the oldest token that the device drew for a sequence.
    pub(crate) fn learn(&mut self, id: SequenceId, token: u32) {
        if let Some(sequence) = self.sequence_mut(id) {
            sequence.learn(token);
        }
    }

    /// Takes a sequence out, wherever it is, and gives its blocks back.
    pub(crate) fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let mut sequence = if let Ok(at) = self.running.binary_search_by_key(&id, |sequence| sequence.id) {
            self.running.remove(at)
        } else {
            let at = self.waiting.binary_search_by_key(&id, |sequence| sequence.id).ok()?;
            self.waiting.remove(at)?
        };
        self.pool.release(&mut sequence.blocks);
        Some(sequence)
    }

    /// A running sequence.
    pub(crate) fn running(&self, id: SequenceId) -> Option<&Sequence> {
        let at = self.running.binary_search_by_key(&id, |sequence| sequence.id).ok()?;
        self.running.get(at)
    }

    /// Sequences that hold blocks.
    pub(crate) fn running_len(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait.
    #[cfg(test)]
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The blocks.
    pub(crate) fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Checks what the rest relies on.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(crate) fn check_integrity(&self) -> Result<(), String> {
        self.pool.check_integrity(self.running.iter().map(|sequence| sequence.blocks.as_slice()))?;
        let ages = || self.running.iter().chain(&self.waiting).map(|sequence| sequence.id);
        if !ages().is_sorted_by(|older, younger| older < younger) {
            return Err(format!("sequences out of order of arrival: {:?}", ages().collect::<Vec<_>>()));
        }
        for sequence in &self.running {
            if self.pool.blocks_for(sequence.computed) > sequence.blocks.len() {
                return Err(format!("{:?} has computed tokens without a block", sequence.id));
            }
            if sequence.settled > sequence.computed {
                return Err(format!("{:?} has settled tokens that are not computed", sequence.id));
            }
            let shares = self.pool.caches() && sequence.sharing != Sharing::Nothing;
            if !self.pool.check_table(&sequence.blocks, if shares { sequence.settled } else { 0 }) {
                return Err(format!(
                    "{:?} shares what is not settled, or does not share what is",
                    sequence.id
                ));
            }
        }
        if let Some(sequence) =
            self.waiting.iter().find(|waiting| !waiting.blocks.is_empty() || waiting.computed > 0)
        {
            return Err(format!("{:?} waits and holds blocks", sequence.id));
        }
        Ok(())
    }

    /// Gives every running sequence blocks for all its tokens, oldest first, and returns who had to go for that.
    fn make_room(&mut self) -> Vec<SequenceId> {
        let mut preempted = Vec::new();
        let mut at = 0;
        while let Some(sequence) = self.running.get_mut(at) {
            let wanted = self.pool.blocks_for(sequence.computed + sequence.pending());
            let missing = wanted.saturating_sub(sequence.blocks.len());
            if self.pool.allocate(missing, &mut sequence.blocks) {
                at += 1;
            } else {
                preempted.extend(self.preempt_youngest());
            }
        }
        preempted
    }

    fn preempt_youngest(&mut self) -> Option<SequenceId> {
        let mut sequence = self.running.pop()?;
        self.pool.release(&mut sequence.blocks);
        sequence.computed = 0;
        sequence.settled = 0;
        let id = sequence.id;
        self.waiting.push_front(sequence);
        Some(id)
    }

    /// Moves the oldest waiting sequence to the running ones, if there is room.
    fn admit(&mut self, plan: &mut Plan) -> bool {
        if self.running.len() >= self.limits.max_sequences {
            return false;
        }
        // What the device still owes to a preempted sequence is learnt before it comes back.
        let Some(sequence) = self.waiting.front().filter(|sequence| sequence.fed().is_none()) else {
            return false;
        };
        let found = match &sequence.sharing {
            Sharing::Nothing => Found::default(),
            Sharing::Under(salt) => self.pool.find(salt, sequence.tokens()),
        };
        // Those that others hold are there already; the idle ones are taken from what can be had.
        let missing = self.pool.blocks_for(sequence.tokens().len()) - found.blocks.len();
        if missing + found.idle + self.running.len() > self.pool.available() {
            return false;
        }
        let Some(mut sequence) = self.waiting.pop_front() else { return false };
        self.pool.share(&found, &mut sequence.blocks);
        let admitted = self.pool.allocate(missing, &mut sequence.blocks);
        sequence.settled = found.blocks.len() * self.pool.block_size();
        sequence.computed = sequence.settled;
        let first = !std::mem::replace(&mut sequence.admitted, true);
        if first && self.pool.caches() && sequence.sharing != Sharing::Nothing {
            plan.found.push((sequence.id, sequence.computed));
        }
        self.running.push(sequence);
        admitted
    }

    fn sequence_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        if let Ok(at) = self.running.binary_search_by_key(&id, |sequence| sequence.id) {
            return self.running.get_mut(at);
        }
        let at = self.waiting.binary_search_by_key(&id, |sequence| sequence.id).ok()?;
        self.waiting.get_mut(at)
    }

    fn running_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        let at = self.running.binary_search_by_key(&id, |sequence| sequence.id).ok()?;
        self.running.get_mut(at)
    }
}

/// Plans as much of a prefill as `rows` allow.
fn take(sequence: &Sequence, rows: &mut usize, plan: &mut Plan) {
    let len = sequence.pending().min(*rows);
    if len > 0 {
        *rows -= len;
        plan.chunks.push(chunk(sequence, len));
    }
}

fn chunk(sequence: &Sequence, len: usize) -> Chunk {
    Chunk { id: sequence.id, start: sequence.computed, len, last: len == sequence.pending() }
}
