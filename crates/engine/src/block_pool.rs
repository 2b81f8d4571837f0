//! Blocks of the KV cache: who holds which.
//!
//! - A block is `block_size` consecutive cache rows. Sequences whose tokens begin alike hold the same blocks.
//! - `free + cached + used = total`, always; [`BlockPool::check_integrity`] recounts all three.
//! - *Free* blocks hold nothing. *Cached* ones hold the keys and values of a prefix, and nobody: they are found again
//!   ([`crate::prefix_cache`]), or evicted when nothing is free. *Used* ones have holders.
//! - **Nothing is written to a block that can be found**: only full blocks become known, when their step has completed,
//!   and only whole blocks are shared, so that none has to be copied.

use std::ops::Range;

use crate::prefix_cache::{Place, PrefixCache};

/// The free list over all blocks of a cache, their holders, and what is cached in them.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    block_size: usize,
    free: Vec<u32>,
    /// How many hold each block.
    holders: Vec<u32>,
    used: usize,
    prefixes: Option<PrefixCache>,
}

/// Blocks that a sequence finds filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) blocks: Vec<u32>,
    /// How many of them nobody holds.
    pub(crate) idle: usize,
}

impl BlockPool {
    /// `blocks` free blocks of `block_size` tokens, at least one token; nothing is cached.
    pub(crate) fn new(blocks: usize, block_size: usize) -> Self {
        let free = (0..u32::try_from(blocks).unwrap_or(u32::MAX)).rev().collect();
        Self { block_size: block_size.max(1), free, holders: vec![0; blocks], used: 0, prefixes: None }
    }

    /// With a prefix cache.
    pub(crate) fn caching(mut self) -> Self {
        self.prefixes = Some(PrefixCache::new(self.total()));
        self
    }

    /// Whether it has a prefix cache.
    pub(crate) fn caches(&self) -> bool {
        self.prefixes.is_some()
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
        self.holders.len()
    }

    /// Blocks with nothing in them.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that hold a prefix, and that nobody holds.
    pub(crate) fn cached(&self) -> usize {
        self.prefixes.as_ref().map_or(0, PrefixCache::idle)
    }

    /// Blocks that somebody holds.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Blocks that can be had.
    pub(crate) fn available(&self) -> usize {
        self.free() + self.cached()
    }

    /// Appends `count` blocks to `table`, free ones first; `false`, and nothing changes, when so many cannot be had.
    pub(crate) fn allocate(&mut self, count: usize, table: &mut Vec<u32>) -> bool {
        if count > self.available() {
            return false;
        }
        for _ in 0..count {
            let Some(block) = self.free.pop().or_else(|| self.prefixes.as_mut()?.evict()) else {
                return false;
            };
            self.hold(block);
            table.push(block);
        }
        true
    }

    /// Takes all blocks of `table` back. What is known stays cached.
    pub(crate) fn release(&mut self, table: &mut Vec<u32>) {
        for block in table.drain(..).rev() {
            self.give_back(block);
        }
    }

    /// The longest chain of known blocks that `tokens` begin with. At least one token is left over.
    pub(crate) fn find(&mut self, salt: &str, tokens: &[u32]) -> Found {
        let mut found = Found::default();
        let Some(prefixes) = &mut self.prefixes else { return found };
        let mut place = Place::First(salt);
        let computed = tokens.split_last().map_or(tokens, |(_, others)| others);
        for tokens in computed.chunks_exact(self.block_size) {
            let Some(block) = prefixes.find(place, tokens) else { break };
            found.blocks.push(block);
            found.idle += usize::from(self.holders.get(block as usize) == Some(&0));
            place = Place::Behind(block);
        }
        found
    }

    /// Appends blocks that were found to `table`.
    pub(crate) fn share(&mut self, found: &Found, table: &mut Vec<u32>) {
        for block in &found.blocks {
            self.hold(*block);
            table.push(*block);
        }
    }

    /// Makes these blocks of a table known: they are full of `tokens`, and the steps that filled them have completed. The
    /// blocks in front of them are known. A table whose block is known twice takes the other and gives its own back.
    pub(crate) fn keep(&mut self, salt: &str, tokens: &[u32], table: &mut [u32], blocks: Range<usize>) {
        for at in blocks {
            let Some(prefixes) = &mut self.prefixes else { return };
            let Some(tokens) = tokens.chunks_exact(self.block_size).nth(at) else { return };
            let before = at.checked_sub(1).and_then(|before| table.get(before).copied());
            let place = before.map_or(Place::First(salt), Place::Behind);
            let Some(block) = table.get_mut(at) else { return };
            match prefixes.find(place, tokens) {
                None => prefixes.insert(place, tokens, *block),
                Some(known) if known == *block => {}
                Some(known) => {
                    // A step under way may still read the block that goes; whoever gets it writes behind that step.
                    let own = std::mem::replace(block, known);
                    self.hold(known);
                    self.give_back(own);
                }
            }
        }
    }

    /// Frees all that is cached.
    pub(crate) fn clear_cache(&mut self) {
        while let Some(block) = self.prefixes.as_mut().and_then(PrefixCache::evict) {
            self.free.push(block);
        }
    }

    fn hold(&mut self, block: u32) {
        let Some(holders) = self.holders.get_mut(block as usize) else { return };
        *holders += 1;
        if *holders == 1 {
            self.used += 1;
            if let Some(prefixes) = &mut self.prefixes {
                prefixes.hold(block);
            }
        }
    }

    fn give_back(&mut self, block: u32) {
        match self.holders.get_mut(block as usize) {
            Some(holders) if *holders > 0 => {
                *holders -= 1;
                if *holders == 0 {
                    self.used -= 1;
                    let known = self.prefixes.as_mut().is_some_and(|prefixes| prefixes.rest(block));
                    if !known {
                        self.free.push(block);
                    }
                }
            }
            _ => tracing::error!(block, "a KV block was given back that nobody held"),
        }
    }

    /// Whether all positions of a table before `settled` lie in blocks that are known, and none behind them in one that
    /// is, or that another holds: what is still to be written is written to nobody else's.
    pub(crate) fn check_table(&self, table: &[u32], settled: usize) -> bool {
        let known = |block: &u32| self.prefixes.as_ref().is_some_and(|prefixes| prefixes.knows(*block));
        let (full, rest) = table.split_at((settled / self.block_size).min(table.len()));
        full.iter().all(known)
            && rest.iter().all(|block| !known(block) && self.holders.get(*block as usize) == Some(&1))
    }

    /// Recounts: every block is free, cached, or held by as many of `tables` as it says.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(crate) fn check_integrity<'a>(&self, tables: impl Iterator<Item = &'a [u32]>) -> Result<(), String> {
        let mut holders = vec![0_u32; self.total()];
        for block in tables.flatten() {
            match holders.get_mut(*block as usize) {
                Some(count) => *count += 1,
                None => return Err(format!("block {block} is held, there are {}", self.total())),
            }
        }
        if let Some(block) = (0..self.total()).find(|at| holders[*at] != self.holders[*at]) {
            let counted = self.holders[block];
            return Err(format!("block {block} has {} holders, counted {counted}", holders[block]));
        }
        let mut places = holders;
        if let Some(prefixes) = &self.prefixes {
            prefixes.check_integrity(|block| self.holders[block as usize] > 0)?;
            (0..).zip(&mut places).for_each(|(block, places)| *places += u32::from(prefixes.knows(block)));
        }
        for block in &self.free {
            match places.get_mut(*block as usize) {
                Some(places) => *places += 1,
                None => return Err(format!("block {block} is free, there are {}", self.total())),
            }
            if places[*block as usize] != 1 {
                return Err(format!("block {block} is free, and held, cached or free once more"));
            }
        }
        if let Some(block) = places.iter().position(|places| *places == 0) {
            return Err(format!("block {block} is lost"));
        }
        let used = self.holders.iter().filter(|holders| **holders > 0).count();
        let (free, cached, total) = (self.free(), self.cached(), self.total());
        if used != self.used || free + cached + used != total {
            let counted = self.used;
            return Err(format!(
                "{free} blocks free, {cached} cached, {used} used (counted {counted}), of {total}"
            ));
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

    /// A table with these tokens, computed and known.
    fn computed(pool: &mut BlockPool, tokens: &[u32]) -> Vec<u32> {
        let mut table = Vec::new();
        let found = pool.find("", tokens);
        pool.share(&found, &mut table);
        assert!(pool.allocate(pool.blocks_for(tokens.len()) - table.len(), &mut table));
        pool.keep("", tokens, &mut table, found.blocks.len()..tokens.len() / pool.block_size());
        table
    }

    #[test]
    fn what_is_given_back_is_found_again_and_evicted_when_nothing_is_free() {
        let mut pool = BlockPool::new(4, 2).caching();
        let mut table = computed(&mut pool, &[1, 2, 3, 4, 5]);
        assert_eq!((pool.free(), pool.cached(), pool.used()), (1, 0, 3));
        pool.release(&mut table);
        assert_eq!((pool.free(), pool.cached(), pool.used()), (2, 2, 0));
        assert_eq!(pool.find("", &[1, 2, 3, 4, 9]), Found { blocks: vec![0, 1], idle: 2 });
        assert_eq!(
            pool.find("", &[1, 2, 3, 4]),
            Found { blocks: vec![0], idle: 1 },
            "one token is left over"
        );
        assert_eq!(pool.find("x", &[1, 2, 3, 4, 9]), Found::default());
        assert!(pool.allocate(3, &mut table));
        assert_eq!(pool.find("", &[1, 2, 3, 4, 9]).blocks, [0], "the end has gone first");
        assert!(!pool.allocate(2, &mut table));
        assert_eq!((pool.free(), pool.cached(), pool.used()), (0, 1, 3));
        pool.clear_cache();
        assert_eq!((pool.free(), pool.cached(), pool.used()), (1, 0, 3));
        pool.check_integrity([table.as_slice()].into_iter()).unwrap();
    }

    #[test]
    fn tables_share_what_is_known_and_take_it_for_their_own() {
        let mut pool = BlockPool::new(8, 2).caching();
        let first = computed(&mut pool, &[1, 2, 3, 4, 5]);
        let second = computed(&mut pool, &[1, 2, 3, 4, 6]);
        assert_eq!((first[..2].to_vec(), pool.used()), (second[..2].to_vec(), 4));
        // Computed side by side: the one that is known later takes the other's blocks.
        let mut third = Vec::new();
        assert!(pool.allocate(3, &mut third));
        assert_eq!(pool.used(), 7);
        pool.keep("", &[1, 2, 3, 4, 7, 8], &mut third, 0..3);
        assert_eq!((third[..2].to_vec(), pool.used()), (first[..2].to_vec(), 5));
        assert!(pool.check_table(&third, 6) && pool.check_table(&first, 5));
        assert!(!pool.check_table(&third, 5), "its last block is known");
        let tables = [first, second, third];
        pool.check_integrity(tables.iter().map(Vec::as_slice)).unwrap();
        for mut table in tables {
            pool.release(&mut table);
        }
        assert_eq!((pool.used(), pool.cached(), pool.free()), (0, 3, 5));
    }

    #[test]
    fn without_a_cache_nothing_is_found() {
        let mut pool = BlockPool::new(4, 2);
        let mut table = computed(&mut pool, &[1, 2, 3]);
        assert_eq!(pool.find("", &[1, 2, 3]), Found::default());
        pool.release(&mut table);
        assert_eq!((pool.free(), pool.cached()), (4, 0));
    }

    #[test]
    fn integrity_sees_a_leak() {
        let mut pool = BlockPool::new(2, 1);
        pool.allocate(1, &mut Vec::new());
        assert!(pool.check_integrity(std::iter::empty()).is_err());
    }

    proptest! {
        /// Holders come with tokens of few kinds, compute some, and go.
        #[test]
        fn random_use_keeps_integrity(
            steps in prop::collection::vec((0_usize..4, prop::collection::vec(0_u32..2, 1..24), any::<bool>()), 1..80),
            caching in any::<bool>(),
        ) {
            let pool = BlockPool::new(9, 4);
            let mut pool = if caching { pool.caching() } else { pool };
            let mut tables = vec![Vec::new(); 4];
            for (holder, tokens, release) in steps {
                if release || !tables[holder].is_empty() {
                    pool.release(&mut tables[holder]);
                } else {
                    let found = pool.find("", &tokens);
                    prop_assert!(caching || found.blocks.is_empty());
                    prop_assert!(found.blocks.len() * 4 < tokens.len());
                    pool.share(&found, &mut tables[holder]);
                    let (missing, available) = (pool.blocks_for(tokens.len()) - found.blocks.len(), pool.available());
                    prop_assert_eq!(pool.allocate(missing, &mut tables[holder]), missing <= available);
                    if missing <= available {
                        pool.keep("", &tokens, &mut tables[holder], found.blocks.len()..tokens.len() / 4);
                    }
                }
                prop_assert_eq!(pool.check_integrity(tables.iter().map(Vec::as_slice)), Ok(()));
                prop_assert_eq!(pool.free() + pool.cached() + pool.used(), pool.total());
            }
        }
    }
}
