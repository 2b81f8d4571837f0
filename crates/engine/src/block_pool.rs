//! Blocks of the KV cache: who holds which.
//!
//! - A block is `block_size` consecutive cache rows; it has one holder or none.
//! - `free + used = total`, always; [`BlockPool::check_integrity`] recounts both sides.
//! - There is *no prefix cache*: a block that is given back is free, so nothing is cached. Shared blocks would need a
//!   reference count here and nowhere else.

/// The free list over all blocks of a cache.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    block_size: usize,
    free: Vec<u32>,
    used: Vec<bool>,
}

impl BlockPool {
    /// `blocks` free blocks of `block_size` tokens, at least one token.
    pub(crate) fn new(blocks: usize, block_size: usize) -> Self {
        let free = (0..u32::try_from(blocks).unwrap_or(u32::MAX)).rev().collect();
        Self { block_size: block_size.max(1), free, used: vec![false; blocks] }
    }

    /// Tokens of a block.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks that hold `tokens` tokens.
    pub(crate) fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// Blocks in all.
    pub(crate) fn total(&self) -> usize {
        self.used.len()
    }

    /// Blocks that nobody holds.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that somebody holds.
    pub(crate) fn used(&self) -> usize {
        self.total() - self.free()
    }

    /// Appends `count` free blocks to `table`; `false`, and nothing changes, when there are not so many.
    pub(crate) fn allocate(&mut self, count: usize, table: &mut Vec<u32>) -> bool {
        let Some(rest) = self.free.len().checked_sub(count) else { return false };
        for block in self.free.drain(rest..).rev() {
            if let Some(used) = self.used.get_mut(block as usize) {
                *used = true;
            }
            table.push(block);
        }
        true
    }

    /// Takes all blocks of `table` back.
    pub(crate) fn release(&mut self, table: &mut Vec<u32>) {
        for block in table.drain(..).rev() {
            match self.used.get_mut(block as usize) {
                Some(used) if *used => {
                    *used = false;
                    self.free.push(block);
                }
                _ => tracing::error!(block, "a KV block was given back that nobody held"),
            }
        }
    }

    /// Recounts: every block is free or held by exactly one of `tables`.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(crate) fn check_integrity<'a>(&self, tables: impl Iterator<Item = &'a [u32]>) -> Result<(), String> {
        let mut holders = vec![0_u32; self.total()];
        for block in tables.flatten().copied().chain(self.free.iter().copied()) {
            match holders.get_mut(block as usize) {
                Some(count) => *count += 1,
                None => return Err(format!("block {block} is held, there are {}", self.total())),
            }
        }
        if let Some(block) = holders.iter().position(|&count| count != 1) {
            return Err(format!("block {block} has {} holders, the free list included", holders[block]));
        }
        if let Some(block) = self.free.iter().find(|block| self.used[**block as usize]) {
            return Err(format!("block {block} is free and marked as used"));
        }
        let marked = self.used.iter().filter(|used| **used).count();
        if marked != self.used() {
            return Err(format!("{marked} blocks are marked as used, {} are not free", self.used()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_or_nothing() {
        let mut pool = BlockPool::new(3, 16);
        let mut table = Vec::new();
        assert!(pool.allocate(2, &mut table));
        assert_eq!(table, [0, 1]);
        assert!(!pool.allocate(2, &mut table));
        assert_eq!((pool.free(), pool.used(), table.len()), (1, 2, 2));
        assert_eq!((pool.blocks_for(0), pool.blocks_for(16), pool.blocks_for(17)), (0, 1, 2));
    }

    #[test]
    fn a_block_given_back_twice_stays_single() {
        let mut pool = BlockPool::new(2, 1);
        pool.release(&mut vec![1, 7]);
        assert_eq!(pool.free(), 2);
        pool.check_integrity(std::iter::empty()).unwrap();
    }

    #[test]
    fn integrity_sees_a_leak() {
        let mut pool = BlockPool::new(2, 1);
        pool.allocate(1, &mut Vec::new());
        assert!(pool.check_integrity(std::iter::empty()).is_err());
    }

    proptest! {
        #[test]
        fn random_use_keeps_integrity(steps in prop::collection::vec((0_usize..4, 0_usize..6, any::<bool>()), 1..80)) {
            let mut pool = BlockPool::new(9, 4);
            let mut tables = vec![Vec::new(); 4];
            for (holder, count, release) in steps {
                if release {
                    pool.release(&mut tables[holder]);
                } else {
                    let free = pool.free();
                    prop_assert_eq!(pool.allocate(count, &mut tables[holder]), count <= free);
                }
                prop_assert!(pool.check_integrity(tables.iter().map(Vec::as_slice)).is_ok());
                prop_assert_eq!(pool.free() + pool.used(), pool.total());
            }
        }
    }
}
