//! A network whose next token is a checksum of everything before it, read through the KV cache.
//!
//! Its "keys" are the tokens themselves. A row that lands in the wrong slot, a block that two sequences share, a
//! position left out or a history that does not match the cache changes every later token, so that comparing outputs
//! with [`expected`] checks slots, block tables, positions and recomputation at once.

use std::collections::HashMap;

use crate::batch::{Draw, StepInput};
use crate::worker::{Forward, StepOutput};
use crate::{EngineError, Result, Token};

pub(super) const VOCAB: usize = 1000;

/// What the network does when it meets a certain token.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Error,
    Panic,
}

#[derive(Debug)]
pub(super) struct History {
    slots: HashMap<u32, u32>,
    block_size: u32,
    faults: HashMap<u32, Fault>,
}

impl History {
    pub(super) fn new(block_size: usize) -> Self {
        Self { slots: HashMap::new(), block_size: block_size as u32, faults: HashMap::new() }
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
}

impl Forward for History {
    fn forward(&mut self, step: &StepInput<'_>) -> Result<StepOutput> {
        let batch = &step.batch;
        for (token, slot) in batch.input_ids.iter().zip(&batch.slots) {
            match self.faults.get(token) {
                Some(Fault::Error) => {
                    return Err(bessemer_hal::DeviceError::Lost("as ordered by the test".into()).into());
                }
                Some(Fault::Panic) => panic!("as ordered by the test"),
                None => self.slots.insert(*slot, *token),
            };
        }
        let mut output = StepOutput::default();
        for (at, row) in batch.logit_rows.iter().enumerate() {
            let history = self.read(step, *row as usize);
            match step.draws.get(at) {
                Some(Draw { prompt, generated, seed, sampling, .. }) => {
                    if history != [*prompt, *generated].concat() {
                        return Err(EngineError::Step { reason: "cache and history differ".into() });
                    }
                    let top = (0..sampling.top_logprobs).map(|id| (id, 0.0)).collect();
                    output.tokens.push(Token {
                        id: next(&history, generated.len(), *seed),
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
