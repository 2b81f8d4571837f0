//! What every operation checks before it is recorded: that its buffers are as large as its shapes say.

use bessemer_hal::{DeviceError, Result, Slice};

use crate::View;
use crate::kv::STRIP;

/// Refuses `slice`, operand `name` of `op`, unless it holds `shape` elements of type `T`.
pub(crate) fn holds<T>(op: &str, name: &str, slice: &Slice, shape: &[usize]) -> Result<()> {
    let needed = shape.iter().try_fold(size_of::<T>(), |bytes, &n| bytes.checked_mul(n));
    if needed.is_some_and(|needed| needed as u64 <= slice.size()) {
        return Ok(());
    }
    Err(DeviceError::Usage(format!(
        "{op}: {name} must hold {shape:?} elements of {} bytes, but its slice of buffer '{}' has {} bytes; \
         give it a larger slice or a smaller shape",
        size_of::<T>(),
        slice.buffer().label(),
        slice.size()
    )))
}

/// Refuses a shape that breaks `rule`.
pub(crate) fn rule(op: &str, holds: bool, rule: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(DeviceError::Usage(format!("{op}: {}", rule()))) }
}

/// Refuses a matrix with more elements than the 32-bit indices of GPU kernels reach.
pub(crate) fn indices(op: &str, shape: &[usize]) -> Result<()> {
    let elements = shape.iter().try_fold(1_u32, |all, &n| all.checked_mul(u32::try_from(n).ok()?));
    rule(op, elements.is_some(), || format!("{shape:?} elements are more than 32-bit indices reach"))
}

/// Refuses `rows` of a KV cache that are not whole strips.
pub(crate) fn strips(op: &str, name: &str, rows: usize) -> Result<()> {
    rule(op, rows.is_multiple_of(STRIP), || {
        format!(
            "{name} must be a multiple of {STRIP}, the rows of a strip of the KV cache, not {rows}; round it up"
        )
    })
}

/// Refuses `view` unless it has `rows` rows of `cols` f32 columns.
pub(crate) fn view(op: &str, name: &str, view: &View, rows: usize, cols: usize) -> Result<()> {
    rule(op, view.offset.checked_add(cols).is_some_and(|end| end <= view.stride), || {
        format!("{name} has {cols} columns from {} in rows of {}", view.offset, view.stride)
    })?;
    holds::<f32>(op, name, &view.slice, &[rows, view.stride])
}

/// The refusal of an operation that has no two-term output of its own.
pub(crate) fn two_terms(op: &str) -> DeviceError {
    DeviceError::Usage(format!("{op}: out has two terms; give it f32 and quantise that"))
}

/// Rows per workgroup when `rows` rows are shared by `workers` and one row costs about `row_elements` steps: enough
/// that a workgroup is worth waking, and a few workgroups for each worker.
pub(crate) fn rows_per_group(rows: usize, row_elements: usize, workers: usize) -> usize {
    const WORTH_WAKING: usize = 8192;
    let least = WORTH_WAKING.div_ceil(row_elements.max(1));
    rows.div_ceil(4 * workers.max(1)).max(least).clamp(1, rows.max(1))
}
