//! A step's data: which tokens, where they stand, where their keys go.

use bessemer_hal::Slice;
use bessemer_runtime::Recorder;

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

impl BatchInput {
    /// Checks the batch and carries it into buffers of the step.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the arrays contradict each other.
    pub fn upload(&self, recorder: &mut Recorder<'_>) -> Result<Batch> {
        self.check()?;
        Ok(Batch {
            input_ids: recorder.input("input_ids", &self.input_ids)?,
            positions: recorder.input("positions", &self.positions)?,
            slots: recorder.input("slots", &self.slots)?,
            row_seq: recorder.input("row_seq", &self.row_seq)?,
            block_tables: recorder.input("block_tables", &self.block_tables)?,
            logit_rows: recorder.input("logit_rows", &self.logit_rows)?,
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
