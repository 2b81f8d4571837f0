//! Ranges of addresses, and sets of them: what hazards are found with.
//!
//! Hazards are looked for between *addresses*, not between buffers, so that buffers which alias in a heap are seen.

/// The bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Extent {
    pub(crate) fn new(start: u64, size: u64) -> Self {
        Self { start, end: start.saturating_add(size) }
    }

    /// Whether both hold the same byte.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }
}

/// A set of bytes as sorted extents that neither overlap nor touch.
#[derive(Debug, Default)]
pub(crate) struct ExtentSet {
    sorted: Vec<Extent>,
}

impl ExtentSet {
    pub(crate) fn overlaps(&self, extent: Extent) -> bool {
        let first = self.sorted.partition_point(|e| e.end <= extent.start);
        self.sorted.get(first).is_some_and(|e| e.overlaps(extent))
    }

    pub(crate) fn insert(&mut self, extent: Extent) {
        if extent.start >= extent.end {
            return;
        }
        let first = self.sorted.partition_point(|e| e.end < extent.start);
        let count = self.sorted[first..].iter().take_while(|e| e.start <= extent.end).count();
        if count == 0 {
            self.sorted.insert(first, extent);
            return;
        }
        let merged = Extent {
            start: self.sorted[first].start.min(extent.start),
            end: self.sorted[first + count - 1].end.max(extent.end),
        };
        self.sorted[first] = merged;
        self.sorted.drain(first + 1..first + count);
    }

    pub(crate) fn clear(&mut self) {
        self.sorted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_exactly_the_bytes_put_in() {
        let (mut set, mut plain) = (ExtentSet::default(), [false; 64]);
        // A fixed walk over starts and sizes, empty ones included, that makes extents split, touch, and swallow.
        for step in 0..if cfg!(miri) { 6 } else { 40_u64 } {
            let (start, size) = (step * 29 % 61, step * 7 % 5);
            let end = (start + size).min(64);
            set.insert(Extent { start, end });
            plain[start as usize..end as usize].fill(true);
            assert!(set.sorted.windows(2).all(|w| w[0].end < w[1].start), "{:?}", set.sorted);
            for from in 0..64_u64 {
                for to in from..64 {
                    let expected = plain[from as usize..to as usize].contains(&true);
                    assert_eq!(
                        set.overlaps(Extent { start: from, end: to }),
                        expected,
                        "{from}..{to} {set:?}"
                    );
                }
            }
        }
    }
}
