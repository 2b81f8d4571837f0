//! What changes from step to step: ids, positions, block tables, sampling parameters.

use std::ops::Range;

use bessemer_hal::{Result, Slice};
use bytemuck::NoUninit;

/// Arrays start at multiples of so many bytes, so that each can be bound by itself on every device.
const ALIGNMENT: usize = 256;

/// The arrays of one step, side by side, so that one write carries all of them to the device.
#[derive(Clone, Debug, Default)]
pub struct StepData {
    bytes: Vec<u8>,
    fields: Vec<Range<u64>>,
}

/// One array of a [`StepData`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(usize);

impl StepData {
    /// Adds an array with room for `capacity` elements (at least one); what `data` leaves is zeros. A step whose lists
    /// grow gives them room, so that the layout stays.
    pub fn push<T: NoUninit>(&mut self, data: &[T], capacity: usize) -> Field {
        let start = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(bytemuck::cast_slice(data));
        self.bytes.resize(start + capacity.max(data.len()).max(1) * size_of::<T>(), 0);
        self.fields.push(start as u64..self.bytes.len() as u64);
        Field(self.fields.len() - 1)
    }

    /// Takes all arrays out; the memory stays for those of the next step.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    /// Where each array lies. Two steps with the same layout can use the same recording.
    pub fn layout(&self) -> &[Range<u64>] {
        &self.fields
    }

    /// All arrays, with the gaps between them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A [`StepData`] on the device.
#[derive(Clone, Debug)]
pub struct PlacedData {
    pub(crate) whole: Slice,
    pub(crate) fields: Vec<Range<u64>>,
}

impl PlacedData {
    pub(crate) fn new(whole: Slice, data: &StepData) -> Self {
        Self { whole, fields: data.fields.clone() }
    }

    /// One array, with its whole capacity.
    ///
    /// # Errors
    /// When the field is of another layout.
    pub fn slice(&self, field: Field) -> Result<Slice> {
        let range = self.fields.get(field.0).cloned().unwrap_or(u64::MAX..u64::MAX);
        self.whole.slice(range.start, range.end - range.start)
    }
}
