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

/// Widens strips `wanted` into `to`, where a strip's rows of `columns` elements are `stride` elements apart. A strip
/// that the cache lacks becomes zeros.
#[inline(always)]
pub(super) fn widen<'t, S: Simd, E: KvElement>(
    s: S,
    strips: Strips<'_, E>,
    wanted: std::ops::Range<usize>,
    (columns, stride): (usize, usize),
    to: &'t mut [f32],
) -> Strips<'t, f32> {
    let mut wide: Strips<'t, f32> = [&[]; STRIPS];
    let rows = to.len() / (STRIPS * stride);
    for (i, (to, strip)) in to.chunks_exact_mut(rows * stride).zip(strips).enumerate().take(STRIPS) {
        if !wanted.contains(&i) {
            continue;
        }
        for (row, to) in to.chunks_exact_mut(stride).enumerate() {
            let from = strip.get(row * columns..(row + 1) * columns).unwrap_or(&[]);
            for (d, to) in (0..).step_by(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
                s.store(to, E::load(s, from.get(d..).unwrap_or(&[])));
            }
        }
        wide[i] = to;
    }
    wide
}
