//! The engine's thread: takes commands, plans steps, has them run, hands out what came of them.
//!
//! - **One owner.** Scheduler, blocks, sequences and the network belong to this thread alone; nothing is locked while
//!   a step runs. The only shared state is a snapshot of the statistics, written once per step.
//! - **Asleep when idle.** With nothing to do the thread blocks on its channel; it never polls. Cancellations need no
//!   wake-up, as there is a next step boundary exactly when there is something to cancel.
//! - **One step ahead.** Where the network can, step N + 1 is submitted before step N has been read: the device feeds
//!   the drawn tokens to it. So stop rules apply one step late; what the surplus row of an ended request draws is
//!   dropped. Its keys go to a block that may have a new owner by then, but behind them in the queue's order that owner
//!   writes its own before it reads any. They never go to a block that is shared or cached: such a block is full.
//! - **A failed step fails its own requests**, unless the network can run it again in a plainer way. Errors and panics
//!   end the requests whose rows were in the step; all others go on, from before the steps that were submitted behind it.
//! - **A self-check gives way.** While idle, the thread runs the generations of a self-check, if one is due. They are
//!   no requests: whoever sends one takes their place after the steps under way.
//! - **A lost device fails everybody**, once and at once: those inside, and whoever comes later.
//! - **Counts before ends.** Blocks are freed and statistics published before the end of a request is sent, so whoever
//!   sees the end finds them settled.

mod check;
mod prefixes;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bessemer_hal::DeviceError;
use bessemer_runtime::Optimizations;

use crate::batch::{Want, lay_out};
use crate::command::{Command, Evaluate, Generate};
use crate::forward::{Forward, StepOutput};
use crate::gate::Ticket;
use crate::reply_stream::Outlet;
use crate::scheduler::{Plan, Scheduler};
use crate::self_check::{CheckRun, SelfCheck};
use crate::sequence::{Sequence, SequenceId, Sharing};
use crate::stop::StopRules;
use crate::{EngineError, EngineStats, FinishReason, Reply, Result, Sampling, Usage};

/// What the handle and the thread both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) stats: Mutex<EngineStats>,
    pub(crate) stop: AtomicBool,
    /// Set once the device is gone.
    pub(crate) lost: OnceLock<EngineError>,
}

/// The thread's state.
pub(crate) struct Worker {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    forward: Box<dyn Forward>,
    vocab: usize,
    scheduler: Scheduler,
    owners: BTreeMap<SequenceId, Owner>,
    check: Option<SelfCheck>,
    /// Oldest first.
    under_way: VecDeque<UnderWay>,
    next_id: u64,
    stats: EngineStats,
    /// Until when time has been counted as spent in steps.
    counted: Instant,
}

/// A step that was submitted.
struct UnderWay {
    plan: Plan,
    /// Whose token each draw is.
    draws: Vec<SequenceId>,
    /// Whose logits, and at which position.
    evaluated: Vec<(SequenceId, usize)>,
    started: Instant,
}

/// For whom a sequence runs.
enum Owner {
    Generate {
        sampling: Sampling,
        seed: u64,
        rules: StopRules,
        outlet: Outlet,
        usage: Usage,
    },
    Evaluate {
        logits: Vec<f32>,
        reply: SyncSender<Result<Vec<f32>>>,
        _ticket: Ticket,
    },
    /// The self-check. It counts nowhere as a request.
    Check(CheckRun),
}

/// How a sequence ends. An evaluated one ends with [`FinishReason::Stop`].
type End = Result<FinishReason>;

impl Worker {
    /// A worker over an idle scheduler.
    pub(crate) fn new(
        commands: Receiver<Command>,
        shared: Arc<Shared>,
        forward: Box<dyn Forward>,
        vocab: usize,
        scheduler: Scheduler,
        check: Option<SelfCheck>,
    ) -> Self {
        let mut worker = Self {
            commands,
            shared,
            forward,
            vocab,
            scheduler,
            owners: BTreeMap::new(),
            check,
            under_way: VecDeque::new(),
            next_id: 0,
            stats: EngineStats::default(),
            counted: Instant::now(),
        };
        worker.publish();
        worker
    }

    /// Works until every handle is gone and every request has ended, or until it is told to stop.
    pub(crate) fn run(mut self) {
        loop {
            if self.scheduler.is_idle() && self.under_way.is_empty() {
                self.check_integrity();
                let command = match self.commands.try_recv() {
                    Err(TryRecvError::Empty) if self.begin_check() => None,
                    Err(TryRecvError::Empty) => Some(self.commands.recv().ok()),
                    outcome => Some(outcome.ok()),
                };
                match command {
                    Some(Some(command)) => self.accept(command),
                    Some(None) => return,
                    None => {}
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.accept(command);
            }
            if self.shared.stop.load(Ordering::Acquire) {
                self.abandon_steps();
                self.end_all(&EngineError::ShuttingDown);
                return;
            }
            self.reap();
            let room = self.under_way.len() < self.depth();
            if !(room && self.start_step()) || self.under_way.len() >= self.depth() {
                self.finish_step();
            }
        }
    }

    fn accept(&mut self, command: Command) {
        if !matches!(command, Command::Wake) {
            self.interrupt_check();
        }
        let id = SequenceId(self.next_id);
        let (sequence, most, owner) = match command {
            Command::Wake => return,
            Command::Configure(settings, reply) => return self.configure(*settings, &reply),
            Command::Generate(Generate { prompt, sampling, seed, rules, salt, outlet }) => {
                let usage = Usage { prompt_tokens: prompt.len(), ..Usage::default() };
                let most = prompt.len() + rules.max_tokens;
                (
                    Sequence::new(id, prompt, most).sharing(Sharing::Under(salt)),
                    most,
                    Owner::Generate { sampling, seed, rules, outlet, usage },
                )
            }
            Command::Evaluate(Evaluate { ids, reply, ticket }) => {
                let logits = vec![0.0; ids.len() * self.vocab];
                let most = ids.len();
                (Sequence::new(id, ids, most), most, Owner::Evaluate { logits, reply, _ticket: ticket })
            }
        };
        self.next_id += 1;
        self.stats.requests += 1;
        self.stats.prompt_tokens += sequence.prompt().len() as u64;
        self.owners.insert(id, owner);
        if let Some(error) = self.shared.lost.get().cloned() {
            // It was on its way in when the device was lost.
            return self.end(vec![(id, Err(error))]);
        }
        if let Err(sequence) = self.scheduler.add(sequence) {
            let pool = self.scheduler.pool();
            let rule = format!("prompt and output must fit the KV cache's {} blocks", pool.total());
            let given = format!("{} blocks for {most} tokens", pool.blocks_for(most));
            let error =
                EngineError::invalid("prompt", rule, given, "Raise kv_memory, or ask for fewer tokens");
            self.end(vec![(sequence.id, Err(error))]);
        }
    }

    /// Switches between two steps, with all requests in place.
    fn configure(&mut self, settings: Optimizations, reply: &SyncSender<Result<()>>) {
        while !self.under_way.is_empty() {
            self.finish_step();
        }
        let outcome = match self.shared.lost.get() {
            Some(error) => Err(error.clone()),
            None => self.forward.configure(settings),
        };
        if let (Ok(()), Some(check)) = (&outcome, &mut self.check) {
            check.restart();
        }
        // Nobody listens any more: it is switched all the same.
        reply.try_send(outcome).ok();
    }

    /// Ends the requests whose owners have lost interest.
    fn reap(&mut self) {
        let cancelled =
            |owner: &Owner| matches!(owner, Owner::Generate { outlet, .. } if outlet.is_cancelled());
        let ended: Vec<_> = self
            .owners
            .iter()
            .filter(|(_, owner)| cancelled(owner))
            .map(|(id, _)| (*id, Ok(FinishReason::Cancelled)))
            .collect();
        if !ended.is_empty() {
            self.end(ended);
        }
    }

    fn depth(&self) -> usize {
        self.forward.depth().clamp(1, 2)
    }

    /// Plans and submits a step; `false` when there is nothing to do before a step under way has been read.
    fn start_step(&mut self) -> bool {
        if self.scheduler.is_idle() {
            return false;
        }
        let plan = self.scheduler.schedule();
        self.stats.preemptions += plan.preempted.len() as u64;
        self.count_found(&plan);
        if plan.chunks.is_empty() {
            if self.under_way.is_empty() {
                // Cannot be: the oldest sequence always fits. If it is all the same, requests end rather than hang.
                let reason = "no waiting sequence could be scheduled".into();
                self.end_all(&EngineError::Step { reason });
            }
            return false;
        }
        match self.submit(&plan) {
            Ok(step) => {
                self.note_scheduled(&plan, step.started);
                self.scheduler.advance(&plan, &step.draws);
                self.under_way.push_back(UnderWay { plan, ..step });
                true
            }
            // What it lacked, memory perhaps, the steps in front of it may give back.
            Err(_) if !self.under_way.is_empty() => false,
            Err(error) => {
                self.fail(&plan, error);
                true
            }
        }
    }

    /// The requests of a plan wait no more.
    fn note_scheduled(&self, plan: &Plan, now: Instant) {
        for chunk in &plan.chunks {
            if let Some(Owner::Generate { outlet, .. }) = self.owners.get(&chunk.id) {
                outlet.scheduled(now);
            }
        }
    }

    /// Submits a plan's rows; a panic on the way becomes an error.
    fn submit(&mut self, plan: &Plan) -> Result<UnderWay> {
        let Self { scheduler, owners, forward, stats, .. } = self;
        let step = lay_out(scheduler, plan, |id| match owners.get(&id)? {
            Owner::Generate { sampling, seed, .. } => Some(Want::Draw { sampling, seed: *seed }),
            Owner::Evaluate { .. } => Some(Want::Logits),
            Owner::Check(run) => Some(Want::Draw { sampling: &run.sampling, seed: 0 }),
        });
        let started = Instant::now();
        catch_unwind(AssertUnwindSafe(|| forward.start(&step)))
            .unwrap_or_else(|panic| Err(EngineError::Step { reason: message(panic.as_ref()) }))?;
        stats.steps += 1;
        stats.rows += step.batch.input_ids.len() as u64;
        let draws = step.draws.iter().map(|draw| draw.id).collect();
        Ok(UnderWay { plan: Plan::default(), draws, evaluated: step.evaluated, started })
    }

    /// Waits for the oldest step and hands out what came of it.
    fn finish_step(&mut self) {
        let Some(step) = self.under_way.pop_front() else { return };
        let outcome = self.collect(&step);
        let now = Instant::now();
        let spent = now.saturating_duration_since(step.started.max(self.counted));
        self.counted = now;
        self.stats.step_nanos += u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        match outcome {
            Ok(output) => self.commit(step, output),
            Err(error) => {
                // The steps behind it have read what it did not compute.
                self.abandon_steps();
                self.scheduler.rewind(&step.plan, &step.draws);
                self.fail(&step.plan, error);
            }
        }
    }

    fn collect(&mut self, step: &UnderWay) -> Result<StepOutput> {
        let output = catch_unwind(AssertUnwindSafe(|| self.forward.finish()))
            .unwrap_or_else(|panic| Err(EngineError::Step { reason: message(panic.as_ref()) }))?;
        let (draws, rows, vocab) = (step.draws.len(), step.evaluated.len(), self.vocab);
        if output.tokens.len() != draws || output.logits.len() != rows * vocab {
            let (tokens, logits) = (output.tokens.len(), output.logits.len());
            let reason =
                format!("{tokens} tokens for {draws} draws, {logits} logits for {rows} rows of {vocab}");
            return Err(EngineError::Step { reason });
        }
        if let Some(token) = output.tokens.iter().find(|token| token.id as usize >= vocab) {
            // The sampler draws none of these, whatever the logits: it was damaged on its way.
            let reason = format!("token {} came, of a vocabulary of {vocab}", token.id);
            return Err(DeviceError::Submission { label: "step".into(), reason }.into());
        }
        Ok(output)
    }

    /// Waits for all steps under way and drops what came of them.
    fn abandon_steps(&mut self) {
        let steps: Vec<_> = self.under_way.drain(..).collect();
        for step in &steps {
            self.collect(step).ok();
        }
        for step in steps.iter().rev() {
            self.scheduler.rewind(&step.plan, &step.draws);
        }
    }

    /// Has a failed plan made again where that may help; else ends its requests. No step is under way.
    fn fail(&mut self, plan: &Plan, error: EngineError) {
        self.stats.failed_steps += 1;
        if let EngineError::Device(DeviceError::Lost(reason)) = error {
            tracing::error!(reason, requests = self.owners.len(), "the device is lost");
            let error = EngineError::DeviceLost { reason };
            self.shared.lost.get_or_init(|| error.clone());
            self.end_all(&error);
            self.scheduler.clear_cache();
            return self.publish();
        }
        if self.forward.fall_back(&error) {
            tracing::warn!(%error, requests = plan.chunks.len(), "a step failed and is run again without what failed");
            self.stats.repeated_steps += 1;
            return;
        }
        tracing::error!(%error, requests = plan.chunks.len(), "a step failed");
        let ended = plan.chunks.iter().map(|chunk| (chunk.id, Err(error.clone()))).collect();
        self.end(ended);
    }

    /// Takes over what a step computed.
    fn commit(&mut self, step: UnderWay, output: StepOutput) {
        self.scheduler.settle(&step.plan);
        let mut ended = Vec::new();
        let mut emitted = Vec::new();
        for (id, token) in step.draws.into_iter().zip(output.tokens) {
            let (rules, usage) = match self.owners.get_mut(&id) {
                Some(Owner::Generate { rules, usage, .. }) => (rules, usage),
                Some(Owner::Check(run)) => {
                    self.scheduler.learn(id, token.id);
                    if run.take(token.id) {
                        ended.push((id, Ok(FinishReason::Length)));
                    }
                    continue;
                }
                // The surplus row of a request that ended a step earlier.
                _ => continue,
            };
            let verdict = rules.judge(token.id, usage.completion_tokens);
            if let Some(reason) = verdict.reason() {
                ended.push((id, Ok(reason)));
            }
            if verdict != crate::stop::Verdict::End {
                usage.completion_tokens += 1;
                self.stats.generated_tokens += 1;
                self.scheduler.learn(id, token.id);
                emitted.push((id, token));
            }
        }
        for ((id, position), row) in step.evaluated.iter().zip(output.logits.chunks_exact(self.vocab.max(1)))
        {
            if let Some(Owner::Evaluate { logits, .. }) = self.owners.get_mut(id) {
                let at = position * self.vocab;
                if let Some(target) = logits.get_mut(at..at + self.vocab) {
                    target.copy_from_slice(row);
                }
            }
        }
        for chunk in step.plan.chunks.iter().filter(|chunk| chunk.last) {
            if let Some(Owner::Evaluate { .. }) = self.owners.get(&chunk.id) {
                ended.push((chunk.id, Ok(FinishReason::Stop)));
            }
        }
        self.publish();
        for (id, token) in emitted {
            if let Some(Owner::Generate { outlet, .. }) = self.owners.get(&id) {
                outlet.token(token);
            }
        }
        self.end(ended);
    }

    /// Takes requests out: blocks first, then the counts, then the word to the owner.
    fn end(&mut self, ended: Vec<(SequenceId, End)>) {
        let mut leaving = Vec::with_capacity(ended.len());
        for (id, end) in ended {
            self.scheduler.remove(id);
            let Some(owner) = self.owners.remove(&id) else { continue };
            if let Owner::Check(run) = owner {
                if let Some(check) = &mut self.check {
                    check.ended(end.map(|_| run));
                }
                continue;
            }
            match end {
                Ok(FinishReason::Cancelled) => self.stats.cancelled += 1,
                Ok(_) => self.stats.finished += 1,
                Err(_) => self.stats.failed += 1,
            }
            leaving.push((owner, end));
        }
        self.publish();
        for (owner, end) in leaving {
            owner.end(end);
        }
    }

    fn end_all(&mut self, error: &EngineError) {
        let everybody = self.owners.keys().map(|id| (*id, Err(error.clone()))).collect();
        self.end(everybody);
    }

    fn publish(&mut self) {
        self.account_cached();
        let pool = self.scheduler.pool();
        let checking = usize::from(self.check.as_ref().is_some_and(SelfCheck::is_running));
        self.stats.running = self.scheduler.running_len().saturating_sub(checking);
        self.stats.kv_blocks_total = pool.total();
        self.stats.kv_blocks_free = pool.free();
        self.stats.kv_blocks_used = pool.used();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }

    fn check_integrity(&self) {
        if let Err(rule) = self.scheduler.check_integrity() {
            tracing::error!(rule, "the KV blocks do not add up");
            debug_assert!(false, "{rule}");
        }
    }
}

impl Owner {
    fn end(self, end: End) {
        match self {
            Self::Generate { outlet, usage, .. } => outlet.end(match end {
                Ok(reason) => Reply::Finished { reason, usage },
                Err(error) => Reply::Failed(error),
            }),
            Self::Evaluate { logits, reply, _ticket } => {
                drop(_ticket);
                // Nobody listens any more: then nobody misses it.
                reply.try_send(end.map(|_| logits)).ok();
            }
            Self::Check(_) => {}
        }
    }
}

/// The words of a panic.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}
