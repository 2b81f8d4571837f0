//! Int8 activations that a kernel writes, and what they are held to.

use bessemer_kernels::QuantisedRows;

use crate::{Both, Failure, Outcome, Side, Tolerance, Twin, compare, equal};

/// Room for rows of codes on both devices.
pub(super) struct Codes {
    codes: Both,
    scales: Both,
    sums: Both,
    group: usize,
    /// Groups of a row.
    groups: usize,
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
            groups: dim / group,
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

    /// Compares rows of two terms, all finite: what the terms add up to, in units of the first one's scale. Where a value
    /// lies between two codes the devices may part it differently, but what the second term leaves over is as small.
    pub(super) fn compare_two_terms(&self, what: &str, twin: &Twin) -> Outcome {
        let (want, got) = (self.get(twin, Side::Cpu)?, self.get(twin, Side::Device)?);
        got.sums_are_right(what)?;
        let firsts = |written: &Written| -> Vec<f32> {
            written.scales.chunks_exact(2 * self.groups).flat_map(|row| row[..self.groups].to_vec()).collect()
        };
        compare(&format!("first scales, {what}"), &firsts(&want), &firsts(&got), SCALE)?;
        let unit = firsts(&want);
        let [want, got] = [want, got].map(|written| written.two_terms(self.groups, &unit));
        // Half a step of the second term, on either side: its scale is half a step of the first over 127.
        compare(&format!("terms, {what}"), &want, &got, Tolerance::new(1.1 * 0.5 / 127.0, 2e-5))
    }
}

impl Written {
    /// How far rows of one term or two are from `x`, element by element, in steps of the last term.
    pub(super) fn errors(&self, x: &[f32], dim: usize, terms: usize) -> Vec<f32> {
        let groups = dim / self.group;
        let error = |(at, x): (usize, &f32)| {
            let (row, column) = (at / dim, at % dim);
            let scale = |term: usize| self.scales[(row * terms + term) * groups + column / self.group];
            let code = |term: usize| f32::from(self.codes[(row * terms + term) * dim + column]);
            let sum: f32 = (0..terms).map(|term| scale(term) * code(term)).sum();
            (x - sum).abs() / scale(terms - 1).max(1e-20)
        };
        x.iter().enumerate().map(error).collect()
    }

    /// What rows of two terms add up to; `unit` has a value for each group, which its results are divided by.
    fn two_terms(&self, groups: usize, unit: &[f32]) -> Vec<f32> {
        let term = |row: usize, column: usize| {
            let at = row * groups + column / self.group;
            self.scales[at] * f32::from(self.codes[row * groups * self.group + column])
        };
        let rows = self.scales.len() / (2 * groups);
        let value = |row: usize, column: usize| {
            let unit = unit[row * groups + column / self.group].max(1e-30);
            (term(2 * row, column) + term(2 * row + 1, column)) / unit
        };
        (0..rows).flat_map(|row| (0..groups * self.group).map(move |column| value(row, column))).collect()
    }

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
