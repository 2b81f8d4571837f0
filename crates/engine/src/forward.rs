//! What the engine's thread needs of a network.

use bessemer_runtime::Optimizations;

use crate::batch::StepInput;
use crate::{EngineError, Result, Token};

/// Runs the rows of steps through a network, one after the other.
pub(crate) trait Forward: Send {
    /// Submits a step behind those under way. Tokens that [`StepInput::fed`] names are taken from the draws of the step
    /// submitted last.
    ///
    /// # Errors
    /// When the step could not be submitted; nothing of it counts then.
    fn start(&mut self, step: &StepInput<'_>) -> Result<()>;

    /// Waits for the oldest step under way: a token for each of its draws, and the logits of its evaluated rows.
    ///
    /// # Errors
    /// When the step failed; nothing of it counts then. It is under way no more.
    fn finish(&mut self) -> Result<StepOutput>;

    /// Steps that may be under way at once: one, or two where tokens can be fed.
    fn depth(&self) -> usize;

    /// Gives up whatever may have caused `error`, as far as it can be done without; `false` when there is no such
    /// thing, and a step would fail the same way again. No step is under way.
    fn fall_back(&mut self, error: &EngineError) -> bool;

    /// So many blocks of the KV cache hold prefixes that no sequence uses: whoever counts memory counts them apart.
    fn account_cached(&mut self, blocks: usize);

    /// Other optimisations from the next step on. No step is under way.
    ///
    /// # Errors
    /// When a setting breaks a rule; nothing has changed then.
    fn configure(&mut self, settings: Optimizations) -> Result<()>;
}

/// What came of a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepOutput {
    /// One for each draw, in order.
    pub(crate) tokens: Vec<Token>,
    /// `[evaluated rows, vocab]`.
    pub(crate) logits: Vec<f32>,
}
