//! Several measurements of one quantity.

use std::fmt;

use anyhow::Context;
use serde::Serialize;

/// Median, smallest and largest of the samples, with the samples in the order they were taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub samples: Vec<f64>,
}

impl Spread {
    /// Of at least one sample.
    pub fn of(samples: Vec<f64>) -> anyhow::Result<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().context("nothing was measured");
        let last = sorted.len().saturating_sub(1);
        Ok(Self {
            median: f64::midpoint(at(last / 2)?, at(last.div_ceil(2))?),
            min: at(0)?,
            max: at(last)?,
            samples,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1} – {:.1})", self.median, self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(vec![7.0]).unwrap().median, 7.0);
        assert!(Spread::of(vec![]).is_err());
    }
}
