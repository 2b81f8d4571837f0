//! What the optimisations are worth: each measure on the plain path, now, as it is meant to be, and the gain.

/// What a measure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    TokensPerSecond,
    Milliseconds,
    /// A share from 0 to 1.
    Percent,
}

impl Unit {
    /// A value with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::TokensPerSecond => format!("{value:.1} tok/s"),
            Self::Milliseconds if value >= 10_000.0 => format!("{:.1} s", value / 1e3),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Percent => format!("{:.1} %", value * 100.0),
        }
    }
}

/// What the optimisations are meant to bring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So many times the baseline, at least.
    AtLeast(f64),
    /// So many times the baseline, at most.
    AtMost(f64),
    /// So much more than the baseline.
    More(f64),
}

/// A line of the comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub name: &'static str,
    pub unit: Unit,
    pub goal: Goal,
    /// On the plain path; absent where nobody has measured it.
    pub baseline: Option<f64>,
    /// Of late; absent where nothing ran.
    pub current: Option<f64>,
    /// What it is over the plain path where that was measured side by side, which goes before a quotient of the two
    /// above.
    pub ratio: Option<f64>,
}

impl Measure {
    /// What is to be reached; without a baseline, the difference that is.
    pub fn target(&self) -> String {
        let reached = |baseline: f64| match self.goal {
            Goal::AtLeast(factor) | Goal::AtMost(factor) => baseline * factor,
            Goal::More(points) => (baseline + points).min(1.0),
        };
        self.baseline
            .map_or_else(|| change(self.goal.difference(), self.goal), |value| self.unit.show(reached(value)))
    }

    /// The change against the baseline, in the direction in which it went: a share, or a difference of shares.
    fn improvement(&self) -> Option<f64> {
        if let Some(ratio) = self.ratio {
            return Some(ratio - 1.0);
        }
        let (baseline, current) = (self.baseline?, self.current?);
        match self.goal {
            Goal::More(_) => Some(current - baseline),
            _ => (baseline > 0.0).then(|| current / baseline - 1.0),
        }
    }

    /// The same as it is shown.
    pub fn shown_improvement(&self) -> Option<String> {
        self.improvement().map(|value| change(value, self.goal))
    }

    /// How good that is.
    pub fn standing(&self) -> Option<Standing> {
        let improvement = self.improvement()?;
        let wanted = self.goal.difference();
        // Less is better where less is wanted.
        let (gain, wanted) = (improvement * wanted.signum(), wanted.abs());
        Some(if gain >= wanted {
            Standing::Reached
        } else if gain >= 0.0 {
            Standing::Better
        } else {
            Standing::Worse
        })
    }
}

impl Goal {
    fn difference(self) -> f64 {
        match self {
            Self::AtLeast(factor) | Self::AtMost(factor) => factor - 1.0,
            Self::More(points) => points,
        }
    }
}

/// How an improvement stands to what is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Reached,
    Better,
    Worse,
}

fn change(difference: f64, goal: Goal) -> String {
    let sign = if difference < 0.0 { '−' } else { '+' };
    let unit = if matches!(goal, Goal::More(_)) { "points" } else { "%" };
    format!("{sign}{:.1} {unit}", difference.abs() * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(goal: Goal, baseline: Option<f64>, current: Option<f64>) -> Measure {
        let unit = if matches!(goal, Goal::More(_)) { Unit::Percent } else { Unit::Milliseconds };
        Measure { name: "a", unit, goal, baseline, current, ratio: None }
    }

    fn shown(measure: &Measure) -> (String, Option<String>, Option<Standing>) {
        (measure.target(), measure.shown_improvement(), measure.standing())
    }

    #[test]
    fn more_is_better_or_less_is() {
        let faster = |current| shown(&measure(Goal::AtLeast(1.4), Some(100.0), Some(current)));
        assert_eq!(faster(150.0), ("140.0 ms".into(), Some("+50.0 %".into()), Some(Standing::Reached)));
        assert_eq!(faster(110.0).1.as_deref(), Some("+10.0 %"));
        assert_eq!((faster(110.0).2, faster(80.0).2), (Some(Standing::Better), Some(Standing::Worse)));
        let sooner = |current| shown(&measure(Goal::AtMost(0.85), Some(100.0), Some(current)));
        assert_eq!(sooner(80.0), ("85.0 ms".into(), Some("−20.0 %".into()), Some(Standing::Reached)));
        assert_eq!((sooner(90.0).2, sooner(110.0).2), (Some(Standing::Better), Some(Standing::Worse)));
        let busier = |current| shown(&measure(Goal::More(0.05), Some(0.7), Some(current)));
        assert_eq!(busier(0.8), ("75.0 %".into(), Some("+10.0 points".into()), Some(Standing::Reached)));
        assert_eq!(busier(0.6).1.as_deref(), Some("−10.0 points"));
    }

    #[test]
    fn without_a_baseline_there_is_no_improvement() {
        let unknown = measure(Goal::AtLeast(1.4), None, Some(100.0));
        assert_eq!(shown(&unknown), ("+40.0 %".into(), None, None));
        assert_eq!(shown(&measure(Goal::AtMost(0.85), None, None)).0, "−15.0 %");
        assert_eq!(shown(&measure(Goal::More(0.05), None, None)).0, "+5.0 points");
        assert_eq!(
            measure(Goal::AtLeast(1.4), Some(0.0), Some(1.0)).improvement(),
            None,
            "nothing is no baseline"
        );
        let measured = Measure { ratio: Some(1.31), ..unknown };
        assert_eq!(shown(&measured), ("+40.0 %".into(), Some("+31.0 %".into()), Some(Standing::Better)));
    }

    #[test]
    fn units() {
        assert_eq!(Unit::Milliseconds.show(12_345.0), "12.3 s");
        assert_eq!(Unit::Percent.show(0.934), "93.4 %");
        assert_eq!(Unit::TokensPerSecond.show(480.04), "480.0 tok/s");
    }
}
