//! One block of keys and values, as the products want it.

use crate::kv::KvElement;
use crate::simd::Simd;

/// Positions of a block of keys. Blocks start at multiples of it.
pub(super) const KEYS: usize = 64;

/// Where the keys of one sequence and one head lie in the cache.
#[derive(Clone, Copy)]
pub(super) struct Paged<'a, E> {
    /// The whole cache of keys or of values.
    pub(super) cache: &'a [E],
    /// The sequence's blocks.
    pub(super) table: &'a [u32],
    /// Positions of a block of the table.
    pub(super) block_size: usize,
    /// Elements of a row of the cache.
    pub(super) stride: usize,
    /// Elements before this head.
    pub(super) offset: usize,
    /// Columns of the head.
    pub(super) head_dim: usize,
}

impl<'a, E> Paged<'a, E> {
    /// The head at `position`; nothing where the table or the cache ends before.
    #[inline(always)]
    fn row(&self, position: usize) -> &'a [E] {
        let block = self.table.get(position / self.block_size).map(|&block| block as usize);
        let row = block.map(|block| block * self.block_size + position % self.block_size);
        let from = row.and_then(|row| row.checked_mul(self.stride)).map(|from| from + self.offset);
        from.and_then(|from| self.cache.get(from..from + self.head_dim)).unwrap_or(&[])
    }
}

/// Widens the keys at positions `from + visible` and transposes them: `to[d * KEYS + i]` is column `d` of key `from + i`.
/// Whole registers of keys are written, with zeros for those that are not visible.
#[inline(always)]
pub(super) fn transpose_keys<S: Simd, E: KvElement>(
    s: S,
    keys: Paged<'_, E>,
    from: usize,
    visible: std::ops::Range<usize>,
    to: &mut [f32],
) {
    let head_dim = keys.head_dim;
    let mut first = 0;
    while first < visible.end {
        let mut rows: [&[E]; 16] = [&[]; 16];
        for (i, row) in rows.iter_mut().enumerate().take(S::LANES) {
            if visible.contains(&(first + i)) {
                *row = keys.row(from + first + i);
                // A head's rows are too far apart for the machine to guess the next.
                s.prefetch(keys.row(from + first + i + KEYS));
            }
        }
        let mut d = 0;
        while d < head_dim {
            let mut square = [s.splat(0.0); 16];
            for (row, register) in rows.iter().zip(&mut square).take(S::LANES) {
                if let Some(row) = row.get(d..) {
                    *register = E::load(s, row);
                }
            }
            s.transpose(&mut square);
            for (i, register) in square.iter().enumerate().take(S::LANES.min(head_dim - d)) {
                s.store(&mut to[(d + i) * KEYS + first..][..S::LANES], *register);
            }
            d += S::LANES;
        }
        first += S::LANES;
    }
}

/// Widens the values at positions `from + visible`: row `i` of `to` is the value `from + i`, padded with zeros to
/// `stride`. Rows before the visible ones become zeros.
#[inline(always)]
pub(super) fn widen_values<S: Simd, E: KvElement>(
    s: S,
    values: Paged<'_, E>,
    from: usize,
    visible: std::ops::Range<usize>,
    to: &mut [f32],
    stride: usize,
) {
    for (i, to) in to.chunks_exact_mut(stride).enumerate().take(visible.end) {
        let row = if i < visible.start { &[] } else { values.row(from + i) };
        s.prefetch(values.row(from + i + KEYS));
        for (d, to) in (0..).step_by(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
            s.store(to, E::load(s, row.get(d..).unwrap_or(&[])));
        }
    }
}
