//! Int8 activations that a kernel writes, and what they are held to.

use bessemer_kernels::QuantisedRows;

use crate::{Both, Failure, Outcome, Side, Tolerance, Twin, compare, equal};

/// Room for rows of codes on both devices.
pub(super) struct Codes {
    codes: Both,
    scales: Both,
    sums: Both,
    group: usize,
}

/// Rows of codes, read back from one device.
pub(super) struct Written {
    pub(super) codes: Vec<i8>,
    pub(super) scales: Vec<f32>,
    sums: Vec<i32>,
    group: usize,
}

/// What a scale may differ by: the input differs in its last bits, and so does a quotient.
const SCALE: Tolerance = Tolerance::new(0.0, 1e-5);

impl Codes {
    /// `rows` rows of `dim` columns in groups of `group`, all rubbish.
    pub(super) fn new(twin: &Twin, rows: usize, dim: usize, group: usize) -> Result<Self, Failure> {
        let count = rows * dim;
        Ok(Self {
            codes: twin.rubbish::<i8>(count)?,
            scales: twin.rubbish::<f32>(count / group)?,
            sums: twin.rubbish::<i32>(count / group)?,
            group,
        })
    }

    /// As an operation takes them.
    pub(super) fn on(&self, side: Side) -> QuantisedRows {
        QuantisedRows {
            codes: self.codes.on(side),
            scales: self.scales.on(side),
            sums: self.sums.on(side),
            group: self.group,
        }
    }

    /// What one device wrote.
    pub(super) fn get(&self, twin: &Twin, side: Side) -> Result<Written, Failure> {
        Ok(Written {
            codes: twin.get(side, &self.codes)?,
            scales: twin.get(side, &self.scales)?,
            sums: twin.get(side, &self.sums)?,
            group: self.group,
        })
    }

    /// Compares what both devices wrote for the same rows.
    pub(super) fn compare(&self, what: &str, twin: &Twin) -> Outcome {
        let (want, got) = (self.get(twin, Side::Cpu)?, self.get(twin, Side::Device)?);
        compare(&format!("scales, {what}"), &want.scales, &got.scales, SCALE)?;
        got.sums_are_right(what)?;
        close_codes(what, &want.codes, &got.codes)
    }
}

impl Written {
    /// Whether each sum is that of its group's codes.
    pub(super) fn sums_are_right(&self, what: &str) -> Outcome {
        let groups = self.codes.chunks_exact(self.group);
        let sums: Vec<i32> = groups.map(|group| group.iter().map(|&code| i32::from(code)).sum()).collect();
        equal(&format!("sums, {what}"), &sums, &self.sums)
    }
}

/// Whether codes are the same but for a few that rounding moved to their neighbour.
pub(super) fn close_codes(what: &str, want: &[i8], got: &[i8]) -> Outcome {
    let neighbours = |(want, got): (&i8, &i8)| (i16::from(*want) - i16::from(*got)).abs() == 1;
    let moved = want.iter().zip(got).filter(|pair| neighbours(*pair)).count();
    if moved > 2 + want.len() / 100 {
        return Err(Failure::wrong(format!("codes, {what}: {moved} of {} are off by one", want.len())));
    }
    // What is off by one is few and fine; the rest must be equal.
    let settled: Vec<i8> =
        want.iter().zip(got).map(|(want, got)| if neighbours((want, got)) { *want } else { *got }).collect();
    equal(&format!("codes, {what}"), want, &settled)
}
