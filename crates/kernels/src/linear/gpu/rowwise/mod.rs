//! Kernels that work on rows by themselves: quantisation, gates, embedding.

mod embedding;
mod gated;
mod quantise;

pub(in crate::linear) use embedding::embedding;
pub(in crate::linear) use gated::gated;
pub(in crate::linear) use quantise::quantise;

use bessemer_hal::Binding;

use crate::QuantisedRows;

/// The bindings of int8 rows that a kernel writes.
fn write_int8(out: &QuantisedRows) -> [Binding; 3] {
    [&out.codes, &out.scales, &out.sums].map(|slice| Binding::write_any(slice.clone()))
}
