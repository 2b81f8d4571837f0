//! Mixture-of-experts routing: which experts a row goes to, the rows of each expert, and the weighted sum of what comes
//! back.
//!
//! - [`Router`] chooses, [`ExpertSort`] turns the choice around (rows by expert, for the expert matrices), [`Combine`]
//!   adds the results up.
//! - A row's `top_k` results are added in the order of its own choice, never in the order of experts or of arrival:
//!   so the sum does not depend on the other rows.

mod combine;
mod select;
mod sort;

pub use combine::Combine;
pub(crate) use combine::combine_row;
pub(crate) use select::choose;
pub use select::{Normalise, Router, Scores};
pub use sort::ExpertSort;
pub(crate) use sort::sort_slots;
