//! Rotary position embedding: pairs of columns of a query or key turn by an angle that grows with its position.
//!
//! - Frequencies come from the model's configuration, once ([`inv_freq`]); cosines and sines once a step
//!   ([`RopeTable`]); every layer then only multiplies ([`RopeKv`]).
//! - The angle is the f32 product of position and frequency, because that is what models were trained with; its cosine
//!   and sine are then exact to f32, whatever the position.
//! - Normalising heads, turning them and storing keys and values is *one* launch: each of them alone would be all
//!   overhead.
//!
//! Su et al., *RoFormer*, 2021.

mod frequencies;
mod held;
mod kv;
mod table;

pub use frequencies::{RopeScaling, inv_freq};
pub(crate) use kv::{RopeInputs, RopeParams, turn};
pub use kv::{RopeKv, RopeLayout};
pub use table::RopeTable;
