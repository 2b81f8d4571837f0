//! The hazard tracker: where a barrier is needed, and nowhere else.

use bessemer_hal::Slice;

/// A byte range that was touched since the last barrier.
#[derive(Clone, Copy, Debug)]
struct Touch {
    buffer: u64,
    start: u64,
    end: u64,
    write: bool,
}

/// Remembers what was read and written since the last barrier.
///
/// A conflict is two uses of a common byte of which one writes: read after write, write after read, write after
/// write. Two reads never conflict.
#[derive(Debug, Default)]
pub struct HazardTracker {
    touched: Vec<Touch>,
    barriers: u64,
}

impl HazardTracker {
    /// A tracker that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an operation's uses (`true`: written). Returns whether a barrier must come before it; the tracker then
    /// takes it as set.
    pub fn needs_barrier<'s>(&mut self, uses: impl Iterator<Item = (&'s Slice, bool)> + Clone) -> bool {
        let touches = uses.map(|(slice, write)| Touch {
            buffer: slice.buffer().id(),
            start: slice.offset(),
            end: slice.offset() + slice.size(),
            write,
        });
        let conflict = touches.clone().any(|new| self.touched.iter().any(|old| conflicts(*old, new)));
        if conflict {
            self.touched.clear();
            self.barriers += 1;
        }
        self.touched.extend(touches);
        conflict
    }

    /// Everything so far is in front of what comes.
    pub fn clear(&mut self) {
        self.touched.clear();
    }

    /// Barriers asked for so far.
    pub fn barriers(&self) -> u64 {
        self.barriers
    }
}

fn conflicts(a: Touch, b: Touch) -> bool {
    a.buffer == b.buffer && (a.write || b.write) && a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use bessemer_hal::{BufferDesc, Device, noop::NoopDevice};

    fn slices() -> (Slice, Slice) {
        let device = NoopDevice::new(None);
        let buffer = |label| device.create_buffer(&BufferDesc::own(label, 64)).unwrap().whole();
        (buffer("a"), buffer("b"))
    }

    #[test]
    fn reads_share_and_writes_separate() {
        let (a, b) = slices();
        let mut tracker = HazardTracker::new();
        assert!(!tracker.needs_barrier([(&a, true)].into_iter()), "first use");
        assert!(!tracker.needs_barrier([(&b, true)].into_iter()), "another buffer");
        assert!(tracker.needs_barrier([(&a, false)].into_iter()), "read after write");
        assert!(!tracker.needs_barrier([(&a, false)].into_iter()), "read after read");
        assert!(!tracker.needs_barrier([(&b, true)].into_iter()), "the barrier covered the first write of b");
        assert!(tracker.needs_barrier([(&a, true)].into_iter()), "write after read");
        assert!(tracker.needs_barrier([(&a, true)].into_iter()), "write after write");
        assert_eq!(tracker.barriers(), 3);
    }

    #[test]
    fn disjoint_ranges_of_one_buffer_do_not_conflict() {
        let (a, _) = slices();
        let (low, high) = (a.slice(0, 32).unwrap(), a.slice(32, 32).unwrap());
        let mut tracker = HazardTracker::new();
        assert!(!tracker.needs_barrier([(&low, true)].into_iter()));
        assert!(!tracker.needs_barrier([(&high, true)].into_iter()));
        assert!(tracker.needs_barrier([(&a, false)].into_iter()));
    }

    proptest::proptest! {
        /// Against the definition: after each step, no two operations since the last barrier conflict, and a barrier
        /// was set only where one did.
        #[test]
        fn agrees_with_the_definition(ops in proptest::collection::vec((0u64..6, 1u64..6, proptest::bool::ANY), 1..60)) {
            let (a, _) = slices();
            let mut tracker = HazardTracker::new();
            let mut since: Vec<(u64, u64, bool)> = Vec::new();
            for (start, len, write) in ops {
                let (start, end) = (start * 8, (start * 8 + len * 4).min(64));
                let slice = a.slice(start, end - start).unwrap();
                let conflict = since.iter().any(|&(s, e, w)| (w || write) && s < end && start < e);
                proptest::prop_assert_eq!(tracker.needs_barrier([(&slice, write)].into_iter()), conflict);
                if conflict {
                    since.clear();
                }
                since.push((start, end, write));
            }
        }
    }
}
