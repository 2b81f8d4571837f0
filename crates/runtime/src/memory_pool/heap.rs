//! One heap: which of its blocks are in use, and which wait with their buffer to be used again.

use std::collections::{BTreeMap, BTreeSet};

use super::buddy::Buddy;

/// The blocks of one heap. `H` is the device's heap, `B` its buffer.
#[derive(Debug)]
pub(super) struct Heap<H, B> {
    pub(super) handle: H,
    buddy: Buddy,
    /// By offset; what is not here is free in `buddy`.
    blocks: BTreeMap<u64, Block<B>>,
    /// Size and offset of the idle blocks.
    idle: BTreeSet<(u64, u64)>,
    in_use: u64,
}

#[derive(Debug)]
struct Block<B> {
    size: u64,
    /// Present when nobody uses the block: its buffer, and when it came back.
    idle: Option<(B, u64)>,
}

/// A range that idle blocks fill in part or whole, and no block in use touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// When its last block came back.
    pub(super) since: u64,
}

impl<H, B> Heap<H, B> {
    pub(super) fn new(handle: H, size: u64, smallest: u64) -> Self {
        let buddy = Buddy::new(size, smallest);
        Self { handle, buddy, blocks: BTreeMap::new(), idle: BTreeSet::new(), in_use: 0 }
    }

    /// Takes a free block into use.
    pub(super) fn place(&mut self, size: u64) -> Option<u64> {
        let offset = self.buddy.allocate(size)?;
        self.blocks.insert(offset, Block { size, idle: None });
        self.in_use += size;
        Some(offset)
    }

    /// Takes an idle block of `size` bytes into use, the lowest: so the same steps meet the same buffers.
    pub(super) fn reuse(&mut self, size: u64) -> Option<(u64, B)> {
        let &(_, offset) = self.idle.range((size, 0)..=(size, u64::MAX)).next()?;
        self.idle.remove(&(size, offset));
        let (buffer, _) = self.blocks.get_mut(&offset)?.idle.take()?;
        self.in_use += size;
        Some((offset, buffer))
    }

    /// A block in use becomes idle and keeps its buffer.
    pub(super) fn rest(&mut self, offset: u64, buffer: B, now: u64) {
        if let Some(block) = self.blocks.get_mut(&offset) {
            self.idle.insert((block.size, offset));
            self.in_use -= block.size;
            block.idle = Some((buffer, now));
        }
    }

    /// A block in use becomes free.
    pub(super) fn free(&mut self, offset: u64) {
        if let Some(block) = self.blocks.remove(&offset) {
            self.in_use -= block.size;
            self.buddy.free(offset, block.size);
        }
    }

    /// The range that could hold `size` bytes once its idle blocks are evicted: of all such ranges the one that was
    /// unused for the longest time.
    pub(super) fn window(&self, size: u64) -> Option<Window> {
        // By offset; without a time for those that a block in use touches.
        let mut windows: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
        for (&offset, block) in &self.blocks {
            let span = size.max(block.size);
            let start = offset & !(span - 1);
            // Ranges that reach over the end are none: the heap's size need not be a power of two.
            if start + span <= self.buddy.size() {
                let since = block.idle.as_ref().map(|(_, since)| *since);
                let window = windows.entry(start).or_insert((span, since));
                window.1 = window.1.zip(since).map(|(a, b)| a.max(b));
            }
        }
        let found = windows.into_iter().filter_map(|(offset, (size, since))| Some((since?, offset, size)));
        found.min().map(|(since, offset, size)| Window { offset, size, since })
    }

    /// Frees the idle blocks of a window; their buffers are to be dropped.
    pub(super) fn evict(&mut self, window: Window) -> Vec<B> {
        let offsets: Vec<u64> = self
            .blocks
            .range(window.offset..window.offset + window.size)
            .map(|(offset, _)| *offset)
            .collect();
        offsets.into_iter().filter_map(|offset| self.drop_idle(offset)).collect()
    }

    /// Frees every idle block; their buffers are to be dropped.
    pub(super) fn evict_all(&mut self) -> Vec<B> {
        let offsets: Vec<u64> = self.idle.iter().map(|(_, offset)| *offset).collect();
        offsets.into_iter().filter_map(|offset| self.drop_idle(offset)).collect()
    }

    fn drop_idle(&mut self, offset: u64) -> Option<B> {
        let block = self.blocks.get_mut(&offset)?;
        let (buffer, _) = block.idle.take()?;
        let size = block.size;
        self.blocks.remove(&offset);
        self.idle.remove(&(size, offset));
        self.buddy.free(offset, size);
        Some(buffer)
    }

    /// Bytes that it manages.
    pub(super) fn size(&self) -> u64 {
        self.buddy.size()
    }

    /// Bytes of blocks in use.
    pub(super) fn in_use(&self) -> u64 {
        self.in_use
    }

    /// Idle blocks.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Offset and size of the blocks in use.
    #[cfg(test)]
    pub(super) fn used(&self) -> impl Iterator<Item = (u64, u64)> {
        self.blocks
            .iter()
            .filter(|(_, block)| block.idle.is_none())
            .map(|(offset, block)| (*offset, block.size))
    }

    /// Whether its parts agree with one another.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let blocks: u64 = self.blocks.values().map(|block| block.size).sum();
        assert_eq!(
            blocks + self.buddy.available(),
            self.buddy.size(),
            "blocks and free pieces make the heap"
        );
        assert_eq!(self.used().map(|(_, size)| size).sum::<u64>(), self.in_use);
        let idle: BTreeSet<(u64, u64)> =
            self.blocks.iter().filter(|(_, b)| b.idle.is_some()).map(|(o, b)| (b.size, *o)).collect();
        assert_eq!(idle, self.idle);
        let mut end = 0;
        for (offset, block) in &self.blocks {
            assert!(*offset >= end, "blocks overlap at {offset}");
            end = offset + block.size;
        }
        assert!(end <= self.buddy.size());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = 256;

    fn heap(units: u64) -> Heap<(), u32> {
        Heap::new((), units * UNIT, UNIT)
    }

    #[test]
    fn an_idle_block_is_used_again_with_its_buffer() {
        let mut heap = heap(4);
        let first = heap.place(UNIT).unwrap();
        let second = heap.place(UNIT).unwrap();
        heap.rest(second, 22, 1);
        heap.rest(first, 11, 2);
        assert_eq!((heap.in_use(), heap.idle()), (0, 2));
        assert_eq!(heap.reuse(2 * UNIT), None, "another size");
        assert_eq!(heap.reuse(UNIT), Some((first, 11)), "the lowest");
        assert_eq!(heap.reuse(UNIT), Some((second, 22)));
        assert_eq!(heap.reuse(UNIT), None);
        assert_eq!(heap.in_use(), 2 * UNIT);
        heap.check();
    }

    #[test]
    fn the_window_unused_longest_is_evicted_and_no_other() {
        let mut heap = heap(8);
        let blocks: Vec<u64> = (0..8).map(|_| heap.place(UNIT).unwrap()).collect();
        // Windows of two: [0 1] in use in part, [2 3] since 9, [4 5] since 7, [6 7] in use.
        for (block, since) in [(0, 1), (2, 2), (3, 9), (4, 7), (5, 6)] {
            heap.rest(blocks[block], block as u32, since);
        }
        let window = heap.window(2 * UNIT).unwrap();
        assert_eq!(window, Window { offset: 4 * UNIT, size: 2 * UNIT, since: 7 });
        assert_eq!(heap.evict(window), [4, 5]);
        assert_eq!(heap.place(2 * UNIT), Some(4 * UNIT));
        assert_eq!(heap.idle(), 3);
        heap.check();
    }

    #[test]
    fn without_a_window_nothing_is_evicted() {
        let mut heap = heap(8);
        let blocks: Vec<u64> = (0..8).map(|_| heap.place(UNIT).unwrap()).collect();
        for block in [1, 3, 5, 7] {
            heap.rest(blocks[block], 0, 1);
        }
        assert_eq!(heap.window(2 * UNIT), None, "a block in use touches every window");
        assert_eq!(heap.window(UNIT).unwrap().offset, UNIT);
    }

    #[test]
    fn a_large_idle_block_makes_room_for_small_ones() {
        let mut heap = heap(8);
        let large = heap.place(8 * UNIT).unwrap();
        heap.rest(large, 5, 3);
        let window = heap.window(UNIT).unwrap();
        assert_eq!((window.offset, window.size), (0, 8 * UNIT));
        assert_eq!(heap.evict(window), [5]);
        assert_eq!(heap.place(UNIT), Some(0));
        heap.check();
    }

    #[test]
    fn a_window_does_not_reach_over_the_end() {
        let mut heap = heap(6);
        heap.place(4 * UNIT).unwrap();
        let tail = heap.place(2 * UNIT).unwrap();
        heap.rest(tail, 1, 1);
        assert_eq!(heap.window(4 * UNIT), None);
        assert_eq!(heap.window(2 * UNIT).unwrap().offset, 4 * UNIT);
    }

    #[test]
    fn evicting_everything_leaves_what_is_in_use() {
        let mut heap = heap(8);
        let kept = heap.place(UNIT).unwrap();
        let rest = heap.place(4 * UNIT).unwrap();
        heap.rest(rest, 9, 1);
        assert_eq!(heap.evict_all(), [9]);
        assert_eq!(heap.used().collect::<Vec<_>>(), [(kept, UNIT)]);
        heap.check();
        heap.free(kept);
        assert_eq!(heap.place(8 * UNIT), Some(0));
    }
}
