//! One block of keys and values, as the products want it.

use crate::kv::{KvElement, STRIP};
use crate::simd::Simd;

/// Positions of a block of keys. Blocks start at multiples of it.
pub(super) const KEYS: usize = 64;
/// Strips of a block of keys.
pub(super) const STRIPS: usize = KEYS / STRIP;

/// One head's part of the strips of a block. Those that hold no key in sight are empty.
pub(super) type Strips<'a, E> = [&'a [E]; STRIPS];

/// Where the keys or values of one sequence and one head lie in the cache.
#[derive(Clone, Copy)]
pub(super) struct Paged<'a, E> {
    /// The whole cache of keys or of values.
    pub(super) cache: &'a [E],
    /// The sequence's blocks.
    pub(super) table: &'a [u32],
    /// Positions of a block of the table, a multiple of [`STRIP`].
    pub(super) block_size: usize,
    /// Key heads of the cache.
    pub(super) kv_heads: usize,
    /// The head among them.
    pub(super) head: usize,
    /// Columns of the head.
    pub(super) head_dim: usize,
}

impl<'a, E> Paged<'a, E> {
    /// The strip with `position`; nothing where the table or the cache ends before.
    #[inline(always)]
    fn strip(&self, position: usize) -> &'a [E] {
        let len = STRIP * self.head_dim;
        let block = self.table.get(position / self.block_size).map(|&block| block as usize);
        let first = block.and_then(|block| block.checked_mul(self.block_size / STRIP));
        let strip = first.map(|first| first + position % self.block_size / STRIP);
        let from = strip.and_then(|strip| strip.checked_mul(self.kv_heads * len));
        let from = from.and_then(|from| from.checked_add(self.head * len));
        from.and_then(|from| self.cache.get(from..from.checked_add(len)?)).unwrap_or(&[])
    }

    /// Strips `wanted` of the block that starts at position `from`, and whether the cache has them all.
    #[inline(always)]
    pub(super) fn strips(&self, from: usize, wanted: std::ops::Range<usize>) -> (Strips<'a, E>, bool) {
        let mut strips: Strips<'a, E> = [&[]; STRIPS];
        let mut complete = true;
        for (i, strip) in strips.iter_mut().enumerate() {
            if wanted.contains(&i) {
                *strip = self.strip(from + i * STRIP);
                complete &= !strip.is_empty();
            }
        }
        (strips, complete)
    }
}

impl<E> Paged<'_, E> {
    /// Asks for the strips of positions `range`: the machine guesses no further than a page, and a strip is about one.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&self, s: S, range: std::ops::Range<usize>) {
        for position in range.step_by(STRIP) {
            s.prefetch(self.strip(position));
        }
    }
}

/// Widens strips `wanted` of keys into `to`, `[head_dim, KEYS]`. A strip that the cache lacks becomes zeros.
#[inline(always)]
pub(super) fn widen_keys<'t, S: Simd, E: KvElement>(
    s: S,
    strips: Strips<'_, E>,
    wanted: std::ops::Range<usize>,
    to: &'t mut [f32],
) -> Strips<'t, f32> {
    for (i, strip) in strips.iter().enumerate() {
        if wanted.contains(&i) {
            for (d, to) in to.chunks_exact_mut(KEYS).enumerate() {
                let column = strip.get(d * STRIP..(d + 1) * STRIP).unwrap_or(&[]);
                for (first, to) in
                    (0..).step_by(S::LANES).zip(to[i * STRIP..][..STRIP].chunks_exact_mut(S::LANES))
                {
                    s.store(to, E::load(s, column.get(first..).unwrap_or(&[])));
                }
            }
        }
    }
    std::array::from_fn(|i| to.get(i * STRIP..).unwrap_or(&[]))
}

/// Widens strips `wanted` of values into `to`, `[KEYS, stride]`. A strip that the cache lacks becomes zeros.
#[inline(always)]
pub(super) fn widen_values<'t, S: Simd, E: KvElement>(
    s: S,
    strips: Strips<'_, E>,
    wanted: std::ops::Range<usize>,
    head_dim: usize,
    (to, stride): (&'t mut [f32], usize),
) -> Strips<'t, f32> {
    for (i, (to, strip)) in to.chunks_exact_mut(STRIP * stride).zip(strips).enumerate() {
        if wanted.contains(&i) {
            for (row, to) in to.chunks_exact_mut(stride).enumerate() {
                let value = strip.get(row * head_dim..(row + 1) * head_dim).unwrap_or(&[]);
                for (d, to) in (0..).step_by(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
                    s.store(to, E::load(s, value.get(d..).unwrap_or(&[])));
                }
            }
        }
    }
    std::array::from_fn(|i| to.get(i * STRIP * stride..).unwrap_or(&[]))
}
