//! Results beside what they should be.

use std::fmt::Debug;

use crate::{Failure, Outcome};

/// How far a value may be from what is wanted: `|got − want| ≤ absolute + relative · |want|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// In the unit of the values.
    pub absolute: f32,
    /// As a share of the wanted value.
    pub relative: f32,
}

impl Tolerance {
    /// A tolerance of both kinds.
    pub const fn new(absolute: f32, relative: f32) -> Self {
        Self { absolute, relative }
    }

    fn allows(self, want: f32, got: f32) -> bool {
        // Infinities equal themselves and nothing else; their difference is no number.
        want == got
            || (want.is_nan() && got.is_nan())
            || ((got - want).abs() <= self.absolute + self.relative * want.abs() && want.is_finite())
    }
}

/// Whether `got` is `want` within the tolerance; NaN equals NaN. `what` is what the message begins with: the result's
/// name and the shapes.
///
/// # Errors
/// Names how many values differ, the first of them and the worst, with index and both values.
pub fn compare(what: &str, want: &[f32], got: &[f32], tolerance: Tolerance) -> Outcome {
    same_length(what, want.len(), got.len())?;
    let error = |at: usize| match (got[at] - want[at]).abs() {
        difference if difference.is_nan() => f32::INFINITY,
        difference => difference,
    };
    let off: Vec<usize> = (0..want.len()).filter(|&at| !tolerance.allows(want[at], got[at])).collect();
    let (Some(&first), Some(worst)) =
        (off.first(), off.iter().copied().max_by(|&a, &b| error(a).total_cmp(&error(b))))
    else {
        return Ok(());
    };
    let at = |at: usize| format!("[{at}] is {:e}, should be {:e}", got[at], want[at]);
    Err(Failure::wrong(format!(
        "{what}: {} of {} values differ by more than {:e} + {:e} of the value; first {}; worst {}, off by {:e}",
        off.len(),
        want.len(),
        tolerance.absolute,
        tolerance.relative,
        at(first),
        at(worst),
        error(worst)
    )))
}

/// Whether `got` equals `want`, value by value; for floats pass the bits where NaN or −0 count.
///
/// # Errors
/// Names how many values differ, and index and both values of the first and the last.
pub fn equal<T: PartialEq + Debug>(what: &str, want: &[T], got: &[T]) -> Outcome {
    same_length(what, want.len(), got.len())?;
    let off: Vec<usize> = (0..want.len()).filter(|&at| want[at] != got[at]).collect();
    let (Some(&first), Some(&last)) = (off.first(), off.last()) else { return Ok(()) };
    let at = |at: usize| format!("[{at}] is {:?}, should be {:?}", got[at], want[at]);
    Err(Failure::wrong(format!(
        "{what}: {} of {} values differ; first {}; last {}",
        off.len(),
        want.len(),
        at(first),
        at(last)
    )))
}

fn same_length(what: &str, want: usize, got: usize) -> Outcome {
    if want == got {
        return Ok(());
    }
    Err(Failure::wrong(format!("{what}: {got} values, should be {want}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSE: Tolerance = Tolerance::new(0.1, 0.01);

    fn message(outcome: Outcome) -> String {
        match outcome {
            Err(Failure::Wrong(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_tolerance_is_absolute_and_relative() {
        compare("x", &[0.0, 100.0], &[0.09, 101.05], CLOSE).unwrap();
        compare("x", &[0.0], &[0.11], CLOSE).unwrap_err();
        compare("x", &[100.0], &[101.2], CLOSE).unwrap_err();
    }

    #[test]
    fn only_equal_special_values_are_equal() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        compare("x", &[nan, inf, -inf], &[-nan, inf, -inf], CLOSE).unwrap();
        for (want, got) in [(nan, 0.0), (0.0, nan), (inf, -inf), (inf, 1.0), (1.0, inf), (inf, nan)] {
            compare("x", &[want], &[got], CLOSE).unwrap_err();
        }
    }

    #[test]
    fn the_message_names_the_first_and_the_worst() {
        let what = message(compare("out 1×4", &[1.0; 4], &[1.0, 1.5, 3.0, 0.5], CLOSE));
        for part in ["out 1×4: 3 of 4", "first [1] is 1.5e0", "worst [2] is 3e0, should be 1e0, off by 2e0"]
        {
            assert!(what.contains(part), "{what}");
        }
        let what = message(compare("out", &[1.0; 3], &[9.0, f32::NAN, 1.0], CLOSE));
        assert!(what.contains("worst [1] is NaN"), "{what}");
    }

    #[test]
    fn lengths_are_compared() {
        assert!(message(compare("x", &[1.0], &[], CLOSE)).contains("0 values, should be 1"));
        assert!(message(equal::<u8>("x", &[], &[1])).contains("1 values, should be 0"));
    }

    #[test]
    fn equality_names_the_first_and_the_last() {
        equal("ids", &[1, 2, 3], &[1, 2, 3]).unwrap();
        let what = message(equal("ids", &[1, 2, 3, 4], &[1, 9, 3, 8]));
        assert_eq!(
            what,
            "ids: 2 of 4 values differ; first [1] is 9, should be 2; last [3] is 8, should be 4"
        );
    }
}
