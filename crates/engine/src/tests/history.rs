//! A network whose next token is a checksum of everything before it, read through the KV cache.
//!
//! Its "keys" are the tokens themselves. A row that lands in the wrong slot, a block that two sequences share, a
//! position left out or a history that does not match the cache changes every later token, so that comparing outputs
//! with [`expected`] checks slots, block tables, positions and recomputation at once.

use std::collections::{HashMap, VecDeque};

use bessemer_hal::DeviceError;
use bessemer_runtime::Optimizations;

use crate::batch::{Draw, StepInput};
use crate::forward::{Forward, StepOutput};
use crate::{EngineError, Result, Token};

pub(super) const VOCAB: usize = 1000;

/// What the network does when it meets a certain token.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Error,
    /// As [`Fault::Error`], but only until the network falls back.
    Optional,
    /// Draws tokens that are none.
    Damage,
    Panic,
    /// Loses the device.
    Lost,
}

#[derive(Debug)]
pub(super) struct History {
    slots: HashMap<u32, u32>,
    block_size: u32,
    faults: HashMap<u32, Fault>,
    depth: usize,
    under_way: VecDeque<Result<StepOutput>>,
    /// What the step started last drew.
    drawn: Vec<u32>,
}

impl History {
    pub(super) fn new(block_size: usize) -> Self {
        Self {
            slots: HashMap::new(),
            block_size: block_size as u32,
            faults: HashMap::new(),
            depth: 1,
            under_way: VecDeque::new(),
            drawn: Vec::new(),
        }
    }

    /// Takes so many steps at once.
    pub(super) fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Fails every step that has this token among its rows.
    pub(super) fn fault(mut self, token: u32, fault: Fault) -> Self {
        self.faults.insert(token, fault);
        self
    }

    /// All tokens up to and including `row`, as the cache has them.
    fn read(&self, step: &StepInput<'_>, row: usize) -> Vec<u32> {
        let batch = &step.batch;
        let table = &batch.block_tables[batch.row_seq[row] as usize * batch.blocks_per_seq..];
        let slot = |position: u32| {
            table[(position / self.block_size) as usize] * self.block_size + position % self.block_size
        };
        (0..=batch.positions[row]).map(|position| self.slots[&slot(position)]).collect()
    }

    /// A token that the host may not know yet.
    fn known(&self, token: u32, fed: Option<u32>) -> u32 {
        // A step that failed has drawn nothing: what is computed behind it is dropped.
        fed.map_or(token, |draw| self.drawn.get(draw as usize).copied().unwrap_or_default())
    }

    fn run(&mut self, step: &StepInput<'_>) -> Result<StepOutput> {
        let batch = &step.batch;
        let mut beyond = 0;
        let fed = |row: usize| step.fed.iter().find(|fed| fed.row as usize == row).map(|fed| fed.draw);
        for (row, (token, slot)) in batch.input_ids.iter().zip(&batch.slots).enumerate() {
            let token = self.known(*token, fed(row));
            match self.faults.get(&token) {
                Some(Fault::Error | Fault::Optional) => {
                    let (label, reason) = ("step".into(), "as ordered by the test".into());
                    return Err(DeviceError::Submission { label, reason }.into());
                }
                Some(Fault::Lost) => return Err(DeviceError::Lost("as ordered by the test".into()).into()),
                Some(Fault::Panic) => panic!("as ordered by the test"),
                Some(Fault::Damage) => beyond = VOCAB as u32,
                None => {}
            }
            self.slots.insert(*slot, token);
        }
        let mut output = StepOutput::default();
        for (at, row) in batch.logit_rows.iter().enumerate() {
            let history = self.read(step, *row as usize);
            match step.draws.get(at) {
                Some(Draw { prompt, generated, seed, sampling, fed, .. }) => {
                    let mut known = [*prompt, *generated].concat();
                    if let Some(newest) = known.last_mut() {
                        *newest = self.known(*newest, *fed);
                    }
                    if history != known {
                        return Err(EngineError::Step { reason: "cache and history differ".into() });
                    }
                    let top = (0..sampling.top_logprobs).map(|id| (id, 0.0)).collect();
                    output.tokens.push(Token {
                        id: next(&history, generated.len(), *seed) + beyond,
                        logprob: 0.0,
                        top,
                    });
                }
                None => output.logits.extend(logits(&history)),
            }
        }
        Ok(output)
    }
}

impl Forward for History {
    fn start(&mut self, step: &StepInput<'_>) -> Result<()> {
        let outcome = self.run(step);
        self.drawn = outcome.iter().flat_map(|output| &output.tokens).map(|token| token.id).collect();
        self.under_way.push_back(outcome);
        assert!(self.under_way.len() <= self.depth, "more steps under way than agreed");
        Ok(())
    }

    fn finish(&mut self) -> Result<StepOutput> {
        self.under_way.pop_front().expect("a step is under way")
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn fall_back(&mut self, _: &EngineError) -> bool {
        assert!(self.under_way.is_empty());
        let before = self.faults.len();
        self.faults.retain(|_, fault| !matches!(fault, Fault::Optional));
        self.faults.len() < before
    }

    fn account_cached(&mut self, _: usize) {}

    fn configure(&mut self, _: Optimizations) -> Result<()> {
        assert!(self.under_way.is_empty());
        Ok(())
    }
}

/// The token after `history`, of which the last `generated` were generated.
fn next(history: &[u32], generated: usize, seed: u64) -> u32 {
    let mut sum = seed ^ ((generated as u64) << 32);
    for token in history {
        sum = (sum ^ u64::from(*token)).wrapping_mul(0x0100_0000_01B3).rotate_left(17);
    }
    (sum % VOCAB as u64) as u32
}

/// `[VOCAB]`: the sum of the history, then zeros.
pub(super) fn logits(history: &[u32]) -> Vec<f32> {
    let mut logits = vec![0.0; VOCAB];
    logits[0] = history.iter().sum::<u32>() as f32;
    logits
}

/// What the network generates after `prompt`, computed without an engine.
pub(super) fn expected(prompt: &[u32], seed: u64, tokens: usize) -> Vec<u32> {
    let mut history = prompt.to_vec();
    for generated in 0..tokens {
        history.push(next(&history, generated, seed));
    }
    history.split_off(prompt.len())
}
