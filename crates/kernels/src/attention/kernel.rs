//! The CPU kernel: workgroups, runs of rows of one sequence, and the online softmax.

use std::cell::RefCell;
use std::ops::Range;

use bessemer_hal::cpu::{Invocation, Tile};
use bytemuck::{Pod, Zeroable};
use half::f16;

use super::Params;
use super::block::{KEYS, Paged, Strips, widen_keys, widen_values};
use super::multiply::{ROWS, mix, scores};
use crate::kv::{KvElement, STRIP};
use crate::linear::Int8Tiles;
use crate::simd::{self, Simd, Task, padded};
use crate::{Isa, Kernel};

pub(super) static F32: Kernel = Kernel { name: "attention_f32", cpu: kernel::<f32> };
pub(super) static F16: Kernel = Kernel { name: "attention_f16", cpu: kernel::<f16> };

/// What the kernel reads.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a, E> {
    pub(super) q: &'a [f32],
    pub(super) keys: &'a [E],
    pub(super) values: &'a [E],
    pub(super) row_seq: &'a [u32],
    pub(super) positions: &'a [u32],
    pub(super) block_tables: &'a [u32],
}

fn kernel<E: KvElement>(invocation: &mut Invocation<'_>) {
    let inputs = Inputs::<E> {
        q: invocation.input(0),
        keys: invocation.input(1),
        values: invocation.input(2),
        row_seq: invocation.input(3),
        positions: invocation.input(4),
        block_tables: invocation.input(5),
    };
    let params: Params = invocation.params();
    let mut out = match params.int8.terms() {
        0 => Out::F32(invocation.output(6)),
        _ => Out::Int8(Int8Tiles::take(invocation, 6, params.int8), Vec::new()),
    };
    attend(Isa::detect(), params, inputs, &mut out);
}

/// A tile of the result: some rows, and the query heads of one key head.
pub(super) enum Out<'a> {
    F32(Tile<'a, f32>),
    /// Beside it the row at work.
    Int8(Int8Tiles<'a>, Vec<f32>),
}

impl Out<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::F32(tile) => tile.rows(),
            Self::Int8(tiles, _) => tiles.rows(),
        }
    }

    fn first_row(&self) -> usize {
        match self {
            Self::F32(tile) => tile.first_row(),
            Self::Int8(tiles, _) => tiles.first_row(),
        }
    }

    fn first_col(&self) -> usize {
        match self {
            Self::F32(tile) => tile.first_col(),
            Self::Int8(tiles, _) => tiles.first_col(),
        }
    }

    /// Where row `row` of the tile is to be put, before [`Out::done`].
    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        match self {
            Self::F32(tile) => tile.row_mut(row),
            Self::Int8(tiles, at_work) => {
                at_work.resize(tiles.cols(), 0.0);
                at_work
            }
        }
    }

    fn done(&mut self, row: usize) {
        if let Self::Int8(tiles, at_work) = self {
            tiles.write(row, at_work);
        }
    }
}

/// One tile.
pub(super) fn attend<E: KvElement>(isa: Isa, params: Params, inputs: Inputs<'_, E>, out: &mut Out<'_>) {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut row = 0;
        while row < out.rows() {
            let count = run_length(&inputs, out.first_row() + row, out.rows() - row);
            simd::run(isa, Run { params, inputs, scratch: &mut *scratch, out: &mut *out, row, count });
            row += count;
        }
    });
}

/// How many rows from `first` on belong to one sequence, at consecutive positions.
fn run_length<E>(inputs: &Inputs<'_, E>, first: usize, most: usize) -> usize {
    let follows = |row: &usize| {
        inputs.row_seq.get(*row) == inputs.row_seq.get(row - 1)
            && inputs.positions.get(*row).map(|&p| u64::from(p))
                == inputs.positions.get(row - 1).map(|&p| u64::from(p) + 1)
    };
    1 + (first + 1..first + most).take_while(follows).count()
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// A worker's memory; grows to its largest tile, then stays. In whole cache lines: a load across two costs double.
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(vec![]) };
}

/// The next `len` elements, rounded up to whole lines.
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (taken, left) = std::mem::take(rest).split_at_mut(padded(len));
    *rest = left;
    taken
}

/// Rows of one sequence in one tile.
struct Run<'a, 'b, 'c, E> {
    params: Params,
    inputs: Inputs<'a, E>,
    scratch: &'b mut Vec<Line>,
    out: &'b mut Out<'c>,
    /// The first row of the tile.
    row: usize,
    count: usize,
}

/// Below every score, and finite, so that differences are numbers before the first key has been seen.
const NO_KEY_YET: f32 = -1e30;

impl<E: KvElement> Task for Run<'_, '_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { params: p, inputs, scratch, out, row, count } = self;
        let (heads, kv_heads, head_dim) = (p.heads as usize, p.kv_heads as usize, p.head_dim as usize);
        let group = heads / kv_heads;
        let queries = count * group;
        let wide = padded(head_dim);

        let sizes = [
            queries * head_dim,
            queries * wide,
            KEYS * head_dim,
            KEYS * wide,
            ROWS * KEYS,
            queries,
            queries * 16,
        ];
        let lines = sizes.iter().map(|&size| padded(size) / 16).sum();
        if scratch.len() < lines {
            scratch.resize(lines, Line([0.0; 16]));
        }
        let mut rest: &mut [f32] = bytemuck::cast_slice_mut(scratch);
        let [q, sums, keys, values, scores, maxima, totals] = sizes.map(|size| take(&mut rest, size));
        sums.fill(0.0);
        maxima.fill(NO_KEY_YET);
        totals.fill(0.0);

        // Scores are taken to base 2, so the factor includes log2(e).
        let first_row = out.first_row() + row;
        let scale = s.splat(p.scale * std::f32::consts::LOG2_E);
        for (i, q) in q.chunks_exact_mut(group * head_dim).enumerate().take(count) {
            let from = (first_row + i) * heads * head_dim + out.first_col();
            let columns = inputs.q[from..][..q.len()].chunks(S::LANES);
            for (to, from) in q.chunks_mut(S::LANES).zip(columns) {
                s.store(to, s.mul(s.load(from, 0.0), scale));
            }
        }

        let seq = inputs.row_seq[first_row] as usize;
        let blocks = p.blocks_per_seq as usize;
        let table =
            seq.checked_mul(blocks).and_then(|from| inputs.block_tables.get(from..from.checked_add(blocks)?));
        let capacity = blocks * p.block_size as usize;
        let position = inputs.positions[first_row] as usize;
        // Keys that row `i` of this run sees.
        let end = |i: usize| (position + i + 1).min(capacity);
        let start = |i: usize| (position + i + 1).saturating_sub(p.window as usize).min(end(i));
        let paged = |cache| Paged {
            cache,
            table: table.unwrap_or(&[]),
            block_size: p.block_size as usize,
            kv_heads,
            head: out.first_col() / (group * head_dim),
            head_dim,
        };
        let (paged_keys, paged_values) = (paged(inputs.keys), paged(inputs.values));
        let mut run = Queries { count: queries, head_dim, group, q, sums, scores, maxima, totals };

        for block in start(0) / KEYS..end(count - 1).div_ceil(KEYS) {
            let from = block * KEYS;
            let visible = start(0).saturating_sub(from)..(end(count - 1) - from).min(KEYS);
            let wanted = visible.start / STRIP..visible.end.div_ceil(STRIP);
            let (some_keys, all_keys) = paged_keys.strips(from, wanted.clone());
            let (some_values, all_values) = paged_values.strips(from, wanted.clone());
            let seen =
                |i: usize| start(i).saturating_sub(from).min(KEYS)..end(i).saturating_sub(from).min(KEYS);
            // A few queries widen what they read as they read it; many share the work.
            let few = E::WIDE || queries <= ROWS;
            if few && all_keys && all_values && head_dim.is_multiple_of(S::LANES) {
                run.see(s, (some_keys, STRIP), (some_values, head_dim), seen);
            } else {
                let ahead = from + KEYS..end(count - 1).min(from + 2 * KEYS);
                paged_keys.prefetch(s, ahead.clone());
                paged_values.prefetch(s, ahead);
                let keys = widen_keys(s, some_keys, wanted.clone(), keys);
                let values = widen_values(s, some_values, wanted, head_dim, (values, wide));
                run.see(s, (keys, KEYS), (values, wide), seen);
            }
        }

        let Queries { sums, totals, .. } = run;
        for i in 0..count {
            for (g, to) in out.row_mut(row + i).chunks_exact_mut(head_dim).enumerate() {
                let query = i * group + g;
                let total = s.reduce_add(s.load(&totals[query * 16..][..S::LANES], 0.0));
                let factor = s.splat(if total > 0.0 { 1.0 / total } else { 0.0 });
                for (to, sum) in to.chunks_mut(S::LANES).zip(sums[query * wide..].chunks(S::LANES)) {
                    // Adding 0 makes −0, which masked keys may turn into 0, the same as 0.
                    s.store(to, s.add(s.mul(s.load(sum, 0.0), factor), s.splat(0.0)));
                }
            }
            out.done(row + i);
        }
    }
}

/// The queries of a run and what they have gathered so far.
struct Queries<'a> {
    count: usize,
    head_dim: usize,
    /// Queries of a row.
    group: usize,
    /// `[queries, head_dim]`, scaled.
    q: &'a [f32],
    /// `[queries, padded(head_dim)]`: weighted values.
    sums: &'a mut [f32],
    /// `[ROWS, KEYS]`, of the queries at work.
    scores: &'a mut [f32],
    /// `[queries]`: the largest score.
    maxima: &'a mut [f32],
    /// `[queries, 16]`: sums of weights, lane by lane.
    totals: &'a mut [f32],
}

impl Queries<'_> {
    /// Adds one block, of which row `i` of the run sees the keys `seen(i)`. Beside the keys stands how far the next feature is,
    /// beside the values how far the next value is.
    #[inline(always)]
    fn see<S: Simd, E: KvElement>(
        &mut self,
        s: S,
        keys: (Strips<'_, E>, usize),
        values: (Strips<'_, E>, usize),
        seen: impl Fn(usize) -> Range<usize>,
    ) {
        let (head_dim, group, wide) = (self.head_dim, self.group, padded(self.head_dim));
        let mut query = 0;
        while query < self.count {
            let rows = ROWS.min(self.count - query);
            let any = seen(query / group).start..seen((query + rows - 1) / group).end;
            if !any.is_empty() {
                let strips = any.start / STRIP..any.end.div_ceil(STRIP);
                let width = strips.end * STRIP;
                scores(s, (rows, head_dim), &self.q[query * head_dim..], keys, strips, self.scores);
                let mut shrink = [0.0; 16];
                for (r, scores) in self.scores.chunks_exact_mut(KEYS).enumerate().take(rows) {
                    let seen = seen((query + r) / group);
                    // Overwritten, not added to: what lies in the cache beyond a row's keys may be no number.
                    scores[..seen.start].fill(f32::NEG_INFINITY);
                    scores[seen.end..].fill(f32::NEG_INFINITY);
                    let before = self.maxima[query + r];
                    let max = largest(s, &scores[..width]).max(before);
                    (shrink[r], self.maxima[query + r]) = (before - max, max);
                }
                for shrink in shrink.chunks_exact_mut(S::LANES) {
                    let power = s.exp2(s.load(shrink, 0.0));
                    s.store(shrink, power);
                }
                for (r, scores) in self.scores.chunks_exact_mut(KEYS).enumerate().take(rows) {
                    let total = &mut self.totals[(query + r) * 16..][..S::LANES];
                    let added = exponentials(s, &mut scores[..width], self.maxima[query + r]);
                    let sum = s.fma(s.load(total, 0.0), s.splat(shrink[r]), added);
                    s.store(total, sum);
                }
                let to = (&mut self.sums[query * wide..], wide);
                mix(s, (rows, head_dim), (self.scores, &shrink), values, any, to);
            }
            query += rows;
        }
    }
}

/// The largest score.
#[inline(always)]
fn largest<S: Simd>(s: S, scores: &[f32]) -> f32 {
    let mut max = s.splat(NO_KEY_YET);
    for x in scores.chunks_exact(S::LANES) {
        max = s.max(s.load(x, 0.0), max);
    }
    s.reduce_max(max)
}

/// `scores = 2^(scores − max)`; gives their sum, lane by lane.
#[inline(always)]
fn exponentials<S: Simd>(s: S, scores: &mut [f32], max: f32) -> S::V {
    let mut sum = s.splat(0.0);
    for x in scores.chunks_exact_mut(S::LANES) {
        let power = s.exp2(s.sub(s.load(x, 0.0), s.splat(max)));
        s.store(x, power);
        sum = s.add(sum, power);
    }
    sum
}
