//! From a plan to the arrays that the network reads.

use bessemer_model::BatchInput;

use crate::Sampling;
use crate::scheduler::{Chunk, Plan, Scheduler};
use crate::sequence::SequenceId;

/// Columns of a block table at least.
const LEAST_BLOCKS: usize = 8;

/// What a sequence wants from the rows of its chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want<'a> {
    /// The next token, when the newest one goes through.
    Draw {
        /// How it is drawn.
        sampling: &'a Sampling,
        /// What makes the draw, together with the number of tokens generated before.
        seed: u64,
    },
    /// The logits of every row.
    Logits,
}

/// The next token of one sequence: everything the draw depends on beside the logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw<'a> {
    pub(crate) id: SequenceId,
    pub(crate) sampling: &'a Sampling,
    pub(crate) seed: u64,
    pub(crate) prompt: &'a [u32],
    /// With a zero at its end where `fed` says that the host does not know the newest token.
    pub(crate) generated: &'a [u32],
    /// The draw of the step before that gave the newest token of `generated`, while the host does not know it.
    pub(crate) fed: Option<u32>,
}

/// A row whose token only the device knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FedRow {
    /// The draw of the step before that gave it.
    pub(crate) draw: u32,
    pub(crate) row: u32,
}

/// One step for the network.
#[derive(Debug)]
pub(crate) struct StepInput<'a> {
    /// The rows. The first `draws.len()` of its `logit_rows` are drawn from, the others handed out.
    pub(crate) batch: BatchInput,
    pub(crate) draws: Vec<Draw<'a>>,
    /// Rows whose `input_ids` are still zeros.
    pub(crate) fed: Vec<FedRow>,
    /// For every logit row behind the draws: whose, and at which position.
    pub(crate) evaluated: Vec<(SequenceId, usize)>,
}

/// Lays a plan out. `want` says what each sequence is for; sequences that it does not know are left out.
pub(crate) fn lay_out<'a>(
    scheduler: &'a Scheduler,
    plan: &Plan,
    want: impl Fn(SequenceId) -> Option<Want<'a>>,
) -> StepInput<'a> {
    let block_size = scheduler.pool().block_size();
    let chunks = || {
        let known = |chunk: &Chunk| Some((*chunk, scheduler.running(chunk.id)?, want(chunk.id)?));
        plan.chunks.iter().filter_map(known)
    };
    // By powers of two, so that the shape of a step stays while its sequences grow.
    let most = chunks().map(|(_, sequence, _)| sequence.blocks.len()).max().unwrap_or(0);
    let blocks_per_seq = if most == 0 { 0 } else { most.next_power_of_two().max(LEAST_BLOCKS) };
    let block_tables = Vec::with_capacity(plan.chunks.len() * blocks_per_seq);
    let mut batch = BatchInput { blocks_per_seq, block_tables, ..BatchInput::default() };
    let (mut draws, mut draw_rows, mut fed_rows) = (Vec::new(), Vec::new(), Vec::new());
    let (mut evaluated, mut evaluated_rows) = (Vec::new(), Vec::new());

    for (chunk, sequence, want) in chunks() {
        let first_row = batch.input_ids.len() as u32;
        let positions = chunk.start..chunk.start + chunk.len;
        batch.input_ids.extend(sequence.tokens().iter().skip(chunk.start).take(chunk.len));
        batch.positions.extend(positions.clone().map(|position| position as u32));
        batch.slots.extend(positions.clone().map(|position| {
            let block = sequence.blocks.get(position / block_size).copied().unwrap_or(u32::MAX);
            block.saturating_mul(block_size as u32).saturating_add((position % block_size) as u32)
        }));
        batch.row_seq.extend(std::iter::repeat_n(batch.seqs as u32, chunk.len));
        batch.block_tables.extend(&sequence.blocks);
        batch.seqs += 1;
        batch.block_tables.resize(batch.seqs * blocks_per_seq, 0);
        match want {
            Want::Draw { sampling, seed } if chunk.last => {
                let row = first_row + chunk.len as u32 - 1;
                draw_rows.push(row);
                let (prompt, generated, fed) = (sequence.prompt(), sequence.generated(), sequence.fed());
                fed_rows.extend(fed.map(|draw| FedRow { draw, row }));
                draws.push(Draw { id: chunk.id, sampling, seed, prompt, generated, fed });
            }
            Want::Draw { .. } => {}
            Want::Logits => {
                evaluated_rows.extend(first_row..first_row + chunk.len as u32);
                evaluated.extend(positions.map(|position| (chunk.id, position)));
            }
        }
    }
    batch.logit_rows = draw_rows;
    batch.logit_rows.append(&mut evaluated_rows);
    StepInput { batch, draws, fed: fed_rows, evaluated }
}
