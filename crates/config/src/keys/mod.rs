//! The table of all keys.

use std::sync::LazyLock;

use crate::Kind;
use crate::key::{Acts, Key, Place};

/// Where a key lies in the settings.
macro_rules! at {
    ($($field:ident).+) => {
        Place {
            get: |settings: &Settings| get(&settings.$($field).+),
            set: |settings: &mut Settings, value| set(&mut settings.$($field).+, value),
        }
    };
}

mod acceleration;
mod features;
mod optimizations;
mod program;

impl Key {
    fn new(path: &'static str, kind: Kind, place: Place, about: &'static str) -> Self {
        let acts = if path.starts_with("metal_optimizations.") { Acts::AtOnce } else { Acts::AtStart };
        Self { path, aliases: &[], kind, absent: None, about, acts, flag: None, place }
    }

    fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    fn or(self, absent: &'static str) -> Self {
        Self { absent: Some(absent), ..self }
    }

    fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    fn at_once(self) -> Self {
        Self { acts: Acts::AtOnce, ..self }
    }

    fn not_yet(self, why: &'static str) -> Self {
        Self { acts: Acts::NotYet(why), ..self }
    }
}

/// All keys, in the order in which a file has them. Those of a section stand together.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let mut keys = program::program();
        keys.extend(optimizations::optimizations());
        keys.extend(acceleration::acceleration());
        keys
    });
    &KEYS
}

/// The place of a path in [`keys`].
pub(crate) fn index(path: &str) -> Option<usize> {
    keys().iter().position(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Settings;

    #[test]
    fn names_are_unambiguous_and_sections_stand_together() {
        let mut names = BTreeSet::new();
        let mut variables = BTreeSet::new();
        let mut sections: Vec<&str> = Vec::new();
        for key in keys() {
            assert!(names.insert(key.path.to_owned()), "{}", key.path);
            for alias in key.aliases {
                assert!(names.insert(format!("{}.{alias}", key.section())), "{alias}");
            }
            assert!(variables.insert(key.variable()), "{}", key.variable());
            if sections.last() != Some(&key.section()) {
                let inner = key.section().starts_with("metal_optimizations.");
                assert!(inner || !sections.contains(&key.section()), "{}", key.path);
                sections.push(key.section());
            }
        }
        for section in sections {
            assert!(index(section).is_none(), "{section} is a section and a key");
        }
    }

    #[test]
    fn variables_follow_the_rule() {
        let variable = |path| keys()[index(path).unwrap()].variable();
        assert_eq!(variable("metal_optimizations.enabled"), "METAL_OPTIMIZATIONS_ENABLED");
        assert_eq!(
            variable("metal_optimizations.memory_pool.heap_size_mb"),
            "METAL_OPTIMIZATIONS_MEMORY_POOL_HEAP_SIZE_MB"
        );
        assert_eq!(variable("api_key"), "BESSEMER_API_KEY");
        assert_eq!(variable("admin.token"), "BESSEMER_ADMIN_TOKEN");
    }

    #[test]
    fn every_value_of_the_defaults_is_one_that_its_key_takes() {
        let settings = Settings::default();
        for key in keys() {
            let value = key.value(&settings);
            let mut other = Settings::default();
            assert_eq!((key.place.set)(&mut other, &value), Some(()), "{}", key.path);
            assert_eq!(other, settings, "{}", key.path);
            assert_eq!(key.absent.is_none(), value != crate::Value::Absent, "{}", key.path);
        }
    }
}
