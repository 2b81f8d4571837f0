//! One named check, and how it ends.

use bessemer_hal::DeviceError;
use rand::rngs::SmallRng;

use crate::Twin;

/// One named check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Short, unique in its list, words joined by `_`: `ragged_edges`. Reports show it after group and list:
    /// `kernels/gather/ragged_edges`.
    pub name: &'static str,
    /// Runs it once, on shapes and data drawn from the generator. Well below a second on a GPU, and a few seconds at
    /// most on a driver that runs shaders on two cores.
    pub run: fn(&Twin, &mut SmallRng) -> Outcome,
}

/// How a check ends.
pub type Outcome = Result<(), Failure>;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The device did something else than it should.
    #[error("{0}")]
    Wrong(String),
    /// This device cannot run the check, and need not. Counts as no failure.
    #[error("skipped: {0}")]
    Skipped(String),
    /// The device refused or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Failure {
    /// The device did something else than it should; `what` gives the shapes, what was expected and what came.
    pub fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }

    /// This device cannot run the check: `why`.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }

    /// The same, with the case (its shapes) in front of what went wrong.
    #[must_use]
    pub fn within(self, case: &str) -> Self {
        match self {
            Self::Wrong(what) => Self::Wrong(format!("{case}: {what}")),
            Self::Skipped(why) => Self::Skipped(why),
            Self::Device(error) => Self::Wrong(format!("{case}: {error}")),
        }
    }
}
