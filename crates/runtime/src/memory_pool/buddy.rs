//! A buddy allocator over the offsets of one heap.
//!
//! Blocks are powers of two and lie at multiples of their size. A block is split into two halves, its *buddies*, and
//! these unite again as soon as both are free, so that what is free is always in the largest possible pieces. The size
//! of the heap need not be a power of two: it starts as the powers of two that add up to it, the largest first, and
//! these never unite, since no buddy of theirs exists.

use std::collections::BTreeSet;

use super::config::largest_block;

/// Free ranges of one heap. It knows nothing of what is in use; who asks for a block keeps it.
#[derive(Clone, Debug)]
pub(super) struct Buddy {
    /// Size and offset of every free block: the first one that is large enough is the best fit, lowest in the heap.
    free: BTreeSet<(u64, u64)>,
    smallest: u64,
    size: u64,
}

impl Buddy {
    /// Offsets up to `size`, rounded down to `smallest`, a power of two.
    pub(super) fn new(size: u64, smallest: u64) -> Self {
        let size = size / smallest * smallest;
        let mut free = BTreeSet::new();
        let mut offset = 0;
        while offset < size {
            let block = largest_block(size - offset);
            free.insert((block, offset));
            offset += block;
        }
        Self { free, smallest, size }
    }

    /// The offset of a block of `size` bytes, a power of two; `None` when no free piece is large enough.
    pub(super) fn allocate(&mut self, size: u64) -> Option<u64> {
        debug_assert!(size.is_power_of_two() && size >= self.smallest, "block of {size} bytes");
        let &(mut piece, offset) = self.free.range((size, 0)..).next()?;
        self.free.remove(&(piece, offset));
        while piece > size {
            piece /= 2;
            self.free.insert((piece, offset + piece));
        }
        Some(offset)
    }

    /// Takes back a block that [`Buddy::allocate`] gave.
    pub(super) fn free(&mut self, mut offset: u64, mut size: u64) {
        debug_assert!(offset.is_multiple_of(size) && offset + size <= self.size, "{size} bytes at {offset}");
        while self.free.remove(&(size, offset ^ size)) {
            offset &= !size;
            size *= 2;
        }
        let fresh = self.free.insert((size, offset));
        debug_assert!(fresh, "{size} bytes at {offset} were free already");
    }

    /// Bytes of all blocks.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are free.
    #[cfg(test)]
    pub(super) fn available(&self) -> u64 {
        self.free.iter().map(|(size, _)| size).sum()
    }

    /// Free pieces.
    #[cfg(test)]
    pub(super) fn pieces(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_unite_again() {
        let mut buddy = Buddy::new(1024, 256);
        let blocks: Vec<u64> = (0..4).map(|_| buddy.allocate(256).unwrap()).collect();
        assert_eq!(blocks, [0, 256, 512, 768]);
        assert_eq!(buddy.allocate(256), None);
        buddy.free(256, 256);
        buddy.free(512, 256);
        assert_eq!(buddy.allocate(512), None, "neighbours that are no buddies do not unite");
        buddy.free(0, 256);
        assert_eq!(buddy.allocate(512), Some(0));
        buddy.free(0, 512);
        buddy.free(768, 256);
        assert_eq!((buddy.pieces(), buddy.allocate(1024)), (1, Some(0)));
    }

    #[test]
    fn the_smallest_piece_that_fits_is_taken() {
        let mut buddy = Buddy::new(4096, 256);
        let first = buddy.allocate(1024).unwrap();
        buddy.allocate(1024).unwrap();
        buddy.free(first, 1024);
        // Free are 1024 bytes at 0 and 2048 bytes at 2048.
        assert_eq!(buddy.allocate(512), Some(0));
        assert_eq!(buddy.allocate(2048), Some(2048));
    }

    #[test]
    fn a_heap_of_any_size_is_used_whole() {
        let mut buddy = Buddy::new(300 * 256 + 100, 256);
        assert_eq!((buddy.size(), buddy.available()), (300 * 256, 300 * 256));
        let blocks: Vec<u64> = (0..300).map(|_| buddy.allocate(256).unwrap()).collect();
        assert_eq!(buddy.allocate(256), None);
        for block in blocks {
            buddy.free(block, 256);
        }
        // 256 + 32 + 8 + 4
        assert_eq!(buddy.pieces(), 4);
        assert_eq!(buddy.allocate(512 * 256), None);
        assert_eq!(buddy.allocate(256 * 256), Some(0));
    }

    proptest! {
        /// Blocks in use never overlap and stay inside, and when all are back the heap is as at the start.
        #[test]
        fn blocks_are_apart_and_come_together(
            units in 1_u64..600,
            script in proptest::collection::vec((any::<bool>(), 0_u32..8, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut buddy = Buddy::new(units * 256, 256);
            let fresh = buddy.free.clone();
            let mut used: Vec<(u64, u64)> = Vec::new();
            for (take, order, which) in script {
                if take {
                    let size = 256 << order;
                    let room = buddy.free.iter().any(|(piece, _)| *piece >= size);
                    let got = buddy.allocate(size);
                    prop_assert_eq!(got.is_some(), room);
                    if let Some(offset) = got {
                        prop_assert!(offset % size == 0 && offset + size <= units * 256);
                        prop_assert!(used.iter().all(|(o, s)| o + s <= offset || offset + size <= *o));
                        used.push((offset, size));
                    }
                } else if !used.is_empty() {
                    let (offset, size) = used.swap_remove(which.index(used.len()));
                    buddy.free(offset, size);
                }
                let busy: u64 = used.iter().map(|(_, size)| size).sum();
                prop_assert_eq!(busy + buddy.available(), units * 256);
            }
            for (offset, size) in used {
                buddy.free(offset, size);
            }
            prop_assert_eq!(buddy.free, fresh);
        }
    }
}
