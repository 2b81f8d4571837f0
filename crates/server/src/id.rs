//! Names for requests and responses that nobody else has and nobody can guess cheaply.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// `PREFIX-` and 24 hexadecimal digits.
///
/// The digits come from the standard library's randomly keyed hash of a counter: ids need to differ, they protect
/// nothing.
pub fn unique(prefix: &str) -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let high = RandomState::new().hash_one(count);
    let low = RandomState::new().hash_one(count) & 0xFFFF_FFFF;
    format!("{prefix}-{high:016x}{low:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| unique("x")).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 26 && id.starts_with("x-")));
    }
}
