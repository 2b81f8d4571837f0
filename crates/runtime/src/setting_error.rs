//! The one error of settings: of the pool, of the queue and of the ring.

use std::fmt::Display;
use std::ops::RangeInclusive;

use bessemer_hal::DeviceError;

/// A setting that breaks a rule. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but {rule}: {cure}")]
pub struct SettingError {
    /// The setting, as the configuration file spells it below `metal_optimizations`: `blit_queue.timeout_ms`.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What holds for it.
    pub rule: String,
    /// What to do.
    pub cure: String,
}

impl SettingError {
    pub(crate) fn new(
        field: &'static str,
        value: impl Display,
        rule: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { field, value: value.to_string(), rule: rule.into(), cure: cure.into() }
    }

    /// Checks a number against its range; without a `cure` the nearest end of the range is named.
    pub(crate) fn within(
        field: &'static str,
        value: u64,
        range: RangeInclusive<u64>,
        cure: Option<&str>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        let (least, most) = range.into_inner();
        let nearest = || format!("set it to {}", value.clamp(least, most));
        let cure = cure.map_or_else(nearest, str::to_owned);
        Err(Self::new(field, value, format!("it must be {least} to {most}"), cure))
    }
}

impl From<SettingError> for DeviceError {
    fn from(error: SettingError) -> Self {
        Self::Usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_where_it_says_and_the_message_has_field_value_rule_and_cure() {
        let check = |value, cure| SettingError::within("a.b", value, 2..=8, cure).map_err(|e| e.to_string());
        assert_eq!((check(2, None), check(8, None)), (Ok(()), Ok(())));
        assert_eq!(check(1, None), Err("a.b is 1, but it must be 2 to 8: set it to 2".into()));
        assert_eq!(
            check(9, Some("switch it off")),
            Err("a.b is 9, but it must be 2 to 8: switch it off".into())
        );
        let error = SettingError::new("a.b", 1, "it must not be", "set 2");
        assert!(
            matches!(DeviceError::from(error.clone()), DeviceError::Usage(text) if text == error.to_string())
        );
    }
}
