//! A step's data: which tokens, where they stand, where their keys go.

use bessemer_hal::Slice;
use bessemer_runtime::{Field, PlacedData, StepData};

use crate::{ModelError, Result};

/// Slot of a row whose keys and values are not stored.
pub const NO_SLOT: u32 = u32::MAX;

/// A step's data on the host. Rows of one sequence are consecutive and ascend by one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchInput {
    /// `[rows]`: the tokens.
    pub input_ids: Vec<u32>,
    /// `[rows]`: their positions in their sequences.
    pub positions: Vec<u32>,
    /// `[rows]`: the cache row that takes their keys and values: `block · block_size + position mod block_size`.
    pub slots: Vec<u32>,
    /// `[rows]`: the sequence of the batch that they belong to.
    pub row_seq: Vec<u32>,
    /// `[seqs, blocks_per_seq]`: the blocks of each sequence in order; the rest of a row is not read.
    pub block_tables: Vec<u32>,
    /// Sequences in the batch.
    pub seqs: usize,
    /// Columns of the block tables.
    pub blocks_per_seq: usize,
    /// Rows whose logits are wanted, in the order wanted.
    pub logit_rows: Vec<u32>,
}

/// A step's data in buffers, with the shapes that are recorded.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) input_ids: Slice,
    pub(crate) positions: Slice,
    pub(crate) slots: Slice,
    pub(crate) row_seq: Slice,
    pub(crate) block_tables: Slice,
    pub(crate) logit_rows: Slice,
    pub(crate) rows: usize,
    pub(crate) blocks_per_seq: usize,
    pub(crate) wanted: usize,
}

impl Batch {
    /// u32 `[rows]`: the tokens. Whoever knows some of them later than the batch was laid out writes them here first.
    pub fn input_ids(&self) -> &Slice {
        &self.input_ids
    }
}

/// Where a batch's arrays lie in the data of its step.
#[derive(Clone, Copy, Debug)]
pub struct BatchLayout {
    input_ids: Field,
    positions: Field,
    slots: Field,
    row_seq: Field,
    block_tables: Field,
    logit_rows: Field,
    rows: usize,
    blocks_per_seq: usize,
    wanted: usize,
}

impl BatchLayout {
    /// The batch in the buffers that its data was placed in.
    ///
    /// # Errors
    /// [`ModelError::Device`] when `placed` is of another step.
    pub fn on(&self, placed: &PlacedData) -> Result<Batch> {
        Ok(Batch {
            input_ids: placed.slice(self.input_ids)?,
            positions: placed.slice(self.positions)?,
            slots: placed.slice(self.slots)?,
            row_seq: placed.slice(self.row_seq)?,
            block_tables: placed.slice(self.block_tables)?,
            logit_rows: placed.slice(self.logit_rows)?,
            rows: self.rows,
            blocks_per_seq: self.blocks_per_seq,
            wanted: self.wanted,
        })
    }
}

impl BatchInput {
    /// Checks the batch and adds it to the data of its step.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the arrays contradict each other.
    pub fn lay_out(&self, data: &mut StepData) -> Result<BatchLayout> {
        self.check()?;
        let mut push = |array: &[u32]| data.push(array, array.len());
        Ok(BatchLayout {
            input_ids: push(&self.input_ids),
            positions: push(&self.positions),
            slots: push(&self.slots),
            row_seq: push(&self.row_seq),
            block_tables: push(&self.block_tables),
            logit_rows: push(&self.logit_rows),
            rows: self.input_ids.len(),
            blocks_per_seq: self.blocks_per_seq,
            wanted: self.logit_rows.len(),
        })
    }

    fn check(&self) -> Result<()> {
        let rows = self.input_ids.len();
        let wrong = |what: String| Err(ModelError::Batch(what));
        if rows == 0 || self.seqs == 0 {
            return wrong("a batch has at least one row and one sequence".into());
        }
        for (name, len) in [
            ("positions", self.positions.len()),
            ("slots", self.slots.len()),
            ("row_seq", self.row_seq.len()),
        ] {
            if len != rows {
                return wrong(format!("{name} has {len} entries for {rows} rows"));
            }
        }
        if self.block_tables.len() != self.seqs * self.blocks_per_seq {
            return wrong(format!(
                "block_tables has {} entries, {} × {} are needed",
                self.block_tables.len(),
                self.seqs,
                self.blocks_per_seq
            ));
        }
        if let Some(seq) = self.row_seq.iter().find(|s| **s as usize >= self.seqs) {
            return wrong(format!("row_seq names sequence {seq} of {}", self.seqs));
        }
        if let Some(row) = self.logit_rows.iter().find(|r| **r as usize >= rows) {
            return wrong(format!("logit_rows names row {row} of {rows}"));
        }
        let chunk = |i: usize| (self.row_seq[i], self.positions[i]);
        for i in 1..rows {
            let ((s0, p0), (s1, p1)) = (chunk(i - 1), chunk(i));
            if s0 == s1 && p0.checked_add(1) != Some(p1) {
                return wrong(format!("row {i} of sequence {s1} stands at {p1} after {p0}"));
            }
        }
        Ok(())
    }
}
