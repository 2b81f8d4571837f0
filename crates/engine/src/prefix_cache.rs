//! The prefix cache: full blocks of the KV cache that are found again by the tokens they hold.
//!
//! ```text
//!   tokens     t0 … t15 │ t16 … t31 │ t32 … t47 │ t48 …      blocks of 16
//!   known as   (salt, t0 … t15) → 7   (7, t16 … t31) → 2   (2, t32 … t47) → 9
//! ```
//!
//! - **A tree of blocks.** What lies in a block depends on all tokens before it too, and the block in front stands for
//!   these: a block is *known* by the pair of that block and its own tokens. As nothing goes before what is known behind
//!   it, the pair cannot come to mean another prefix. Keys are compared whole, so that equal hashes give no wrong tokens.
//! - **Held or idle.** A sequence that holds a block holds the whole chain in front of it, so what lies behind an idle
//!   block is idle. All idle blocks can be had, one after the other.
//! - **Leaf first, least recently used first.** Only what nothing stands behind is evicted: a prefix that many share
//!   outlives the ends that few do. Of leaves the one goes that was given back the longest time ago.
//! - **A salt parts users.** It belongs to the key of a first block, and through that to the whole chain.
//!
//! The rejected option is a chain of hashes, as vLLM has it: it finds a block without its ancestors, but then needs a hash
//! that nobody can collide on purpose, and keeps blocks behind a gap that no request can reach.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// In front of a first block's salt and tokens, where other keys have the block before them.
const FIRST: u32 = u32::MAX;

/// Where a block stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// At the beginning of what is computed under this salt.
    First(&'a str),
    /// Behind this known block.
    Behind(u32),
}

/// The known blocks.
#[derive(Clone, Debug)]
pub(crate) struct PrefixCache {
    /// By block.
    nodes: Vec<Option<Node>>,
    by_key: HashMap<Arc<[u32]>, u32>,
    /// Idle blocks with nothing behind them, by when they were given back.
    leaves: BTreeSet<(u64, u32)>,
    idle: usize,
    /// Counts what is given back.
    clock: u64,
    /// Where keys are put together.
    key: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Node {
    key: Arc<[u32]>,
    before: Option<u32>,
    /// Known blocks behind it.
    behind: u32,
    /// When it was given back; absent while somebody holds it.
    idle_since: Option<u64>,
}

impl PrefixCache {
    /// A cache that knows none of so many blocks.
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            nodes: vec![None; blocks],
            by_key: HashMap::new(),
            leaves: BTreeSet::new(),
            idle: 0,
            clock: 0,
            key: Vec::new(),
        }
    }

    /// Known blocks that nobody holds.
    pub(crate) fn idle(&self) -> usize {
        self.idle
    }

    /// Whether a block can be found.
    pub(crate) fn knows(&self, block: u32) -> bool {
        self.node(block).is_some()
    }

    /// The block with these tokens at this place.
    pub(crate) fn find(&mut self, place: Place<'_>, tokens: &[u32]) -> Option<u32> {
        self.put_together(place, tokens);
        self.by_key.get(self.key.as_slice()).copied()
    }

    /// Makes a block known that somebody holds. Nothing happens when the block or its key is known, or when what it is to
    /// stand behind is not.
    pub(crate) fn insert(&mut self, place: Place<'_>, tokens: &[u32], block: u32) {
        let before = match place {
            Place::First(_) => None,
            Place::Behind(before) => Some(before),
        };
        let orphan = before.is_some_and(|before| !self.knows(before));
        if orphan || self.knows(block) || self.find(place, tokens).is_some() {
            return;
        }
        let Some(empty) = self.nodes.get_mut(block as usize) else { return };
        let key: Arc<[u32]> = self.key.as_slice().into();
        *empty = Some(Node { key: key.clone(), before, behind: 0, idle_since: None });
        self.by_key.insert(key, block);
        if let Some(before) = before.and_then(|before| self.node_mut(before)) {
            before.behind += 1;
        }
    }

    /// Somebody holds an idle block again.
    pub(crate) fn hold(&mut self, block: u32) {
        if let Some(since) = self.node_mut(block).and_then(|node| node.idle_since.take()) {
            self.idle -= 1;
            self.leaves.remove(&(since, block));
        }
    }

    /// Nobody holds a block any more; `false` when it is not known.
    pub(crate) fn rest(&mut self, block: u32) -> bool {
        self.clock += 1;
        let clock = self.clock;
        let Some(node) = self.node_mut(block) else { return false };
        if node.idle_since.is_none() {
            node.idle_since = Some(clock);
            let leaf = node.behind == 0;
            self.idle += 1;
            if leaf {
                self.leaves.insert((clock, block));
            }
        }
        true
    }

    /// Forgets the leaf that was given back the longest time ago.
    pub(crate) fn evict(&mut self) -> Option<u32> {
        let (_, block) = self.leaves.pop_first()?;
        let node = self.nodes.get_mut(block as usize)?.take()?;
        self.by_key.remove(&node.key);
        self.idle -= 1;
        if let Some(at) = node.before
            && let Some(before) = self.node_mut(at)
        {
            before.behind -= 1;
            if let (0, Some(since)) = (before.behind, before.idle_since) {
                self.leaves.insert((since, at));
            }
        }
        Some(block)
    }

    /// The key of a block, in [`Self::key`].
    fn put_together(&mut self, place: Place<'_>, tokens: &[u32]) {
        self.key.clear();
        match place {
            Place::Behind(block) => self.key.push(block),
            Place::First(salt) => {
                // With its length, so that no salt runs into the tokens.
                self.key.extend([FIRST, salt.len() as u32]);
                self.key.extend(salt.bytes().map(u32::from));
            }
        }
        self.key.extend_from_slice(tokens);
    }

    fn node(&self, block: u32) -> Option<&Node> {
        self.nodes.get(block as usize)?.as_ref()
    }

    fn node_mut(&mut self, block: u32) -> Option<&mut Node> {
        self.nodes.get_mut(block as usize)?.as_mut()
    }

    /// Checks the tree; `held` says which blocks somebody holds.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(crate) fn check_integrity(&self, held: impl Fn(u32) -> bool) -> Result<(), String> {
        let known = || (0..).zip(&self.nodes).filter_map(|(block, node)| Some((block, node.as_ref()?)));
        let mut behind = vec![0; self.nodes.len()];
        for (block, node) in known() {
            if held(block) != node.idle_since.is_none() {
                return Err(format!(
                    "block {block} is idle since {:?}, held: {}",
                    node.idle_since,
                    held(block)
                ));
            }
            if self.by_key.get(&node.key) != Some(&block) {
                return Err(format!("block {block} is not found by its key"));
            }
            if let Some(before) = node.before {
                if !self.knows(before) {
                    return Err(format!("block {block} stands behind {before}, which is not known"));
                }
                if held(block) && !held(before) {
                    return Err(format!("block {block} is held, {before} in front of it is not"));
                }
                behind[before as usize] += 1;
            }
        }
        if let Some((block, node)) = known().find(|(block, node)| node.behind != behind[*block as usize]) {
            let found = behind[block as usize];
            return Err(format!("{found} blocks stand behind {block}, counted {}", node.behind));
        }
        let idle = || known().filter_map(|(block, node)| Some((node.idle_since?, block, node.behind)));
        let leaves = idle().filter(|(.., behind)| *behind == 0).map(|(since, block, _)| (since, block));
        if leaves.collect::<BTreeSet<_>>() != self.leaves {
            return Err("the leaves are not those of the tree".into());
        }
        if (idle().count(), known().count()) != (self.idle, self.by_key.len()) {
            return Err(format!("{} blocks idle, {} keys: miscounted", self.idle, self.by_key.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache with this chain, idle.
    fn chain(cache: &mut PrefixCache, salt: &str, chain: &[(u32, [u32; 2])]) {
        let mut place = Place::First(salt);
        for (block, tokens) in chain {
            cache.insert(place, tokens, *block);
            place = Place::Behind(*block);
        }
        for (block, _) in chain.iter().rev() {
            assert!(cache.rest(*block));
        }
        cache.check_integrity(|_| false).unwrap();
    }

    #[test]
    fn a_block_is_known_by_all_that_is_before_it() {
        let mut cache = PrefixCache::new(8);
        chain(&mut cache, "", &[(3, [1, 2]), (5, [7, 8])]);
        assert_eq!(cache.find(Place::First(""), &[1, 2]), Some(3));
        assert_eq!(cache.find(Place::Behind(3), &[7, 8]), Some(5));
        assert_eq!(cache.find(Place::First(""), &[7, 8]), None);
        assert_eq!(cache.find(Place::Behind(5), &[7, 8]), None);
        assert_eq!(cache.find(Place::Behind(3), &[8, 7]), None);
    }

    #[test]
    fn salts_part() {
        let mut cache = PrefixCache::new(8);
        chain(&mut cache, "a", &[(0, [1, 2])]);
        chain(&mut cache, "b", &[(1, [1, 2])]);
        let mut find = |salt, tokens: [u32; 2]| cache.find(Place::First(salt), &tokens);
        assert_eq!((find("a", [1, 2]), find("b", [1, 2]), find("", [1, 2])), (Some(0), Some(1), None));
        // A salt does not run into the tokens, nor into a block's number.
        chain(&mut cache, "", &[(2, [u32::from(b'a'), 5])]);
        assert_eq!(cache.find(Place::First("a"), &[5, 5]), None);
        assert_eq!(cache.find(Place::First("a"), &[5]), None);
    }

    #[test]
    fn the_oldest_leaf_goes_first_and_what_is_held_stays() {
        let mut cache = PrefixCache::new(8);
        chain(&mut cache, "", &[(0, [0, 0]), (1, [1, 1]), (2, [2, 2])]);
        chain(&mut cache, "", &[(3, [3, 3])]);
        // Once more: now the first chain is the younger one.
        for block in [0, 1] {
            cache.hold(block);
        }
        assert_eq!(cache.idle(), 2);
        assert_eq!(cache.evict(), Some(2));
        assert_eq!(cache.evict(), Some(3));
        assert_eq!(cache.evict(), None, "0 and 1 are held");
        for block in [1, 0] {
            assert!(cache.rest(block));
        }
        assert_eq!([cache.evict(), cache.evict(), cache.evict()], [Some(1), Some(0), None]);
        assert!(!cache.rest(0) && !cache.knows(0));
        cache.check_integrity(|_| false).unwrap();
    }

    #[test]
    fn what_is_known_stays_what_it_is() {
        let mut cache = PrefixCache::new(4);
        cache.insert(Place::First(""), &[1], 0);
        cache.insert(Place::First(""), &[1], 1);
        cache.insert(Place::First(""), &[2], 0);
        cache.insert(Place::Behind(3), &[2], 2);
        cache.insert(Place::First(""), &[9], 4);
        assert_eq!([0, 1, 2, 3, 4].map(|block| cache.knows(block)), [true, false, false, false, false]);
        assert_eq!(cache.find(Place::First(""), &[2]), None);
        cache.check_integrity(|block| block == 0).unwrap();
    }

    #[test]
    fn integrity_sees_a_lost_holder() {
        let mut cache = PrefixCache::new(4);
        cache.insert(Place::First(""), &[1], 0);
        assert!(cache.check_integrity(|_| false).is_err());
        cache.insert(Place::Behind(0), &[1], 1);
        assert!(cache.check_integrity(|block| block == 1).is_err());
    }
}
