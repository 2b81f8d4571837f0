//! Attention over a paged KV cache: causal, grouped queries, optionally a sliding window.
//!
//! - One kernel serves decode, prefill and chunks of both in one launch: a row knows its sequence and its position, and
//!   sees keys `0..=position`.
//! - Softmax is computed *online*, block of keys by block of keys (Dao et al., *FlashAttention*, 2022). Blocks start at
//!   multiples of 64 **positions**, whatever the chunk, the batch or the block table: so a row's sums have one order,
//!   and its bits do not depend on how its prompt was cut or on what ran beside it.
//! - Keys lie *turned* in the cache (see [`crate::kv`]): one load gives sixteen keys' share of a feature, and both
//!   products are broadcast times vector, with one accumulator for each result. The rejected form, dot products along
//!   the head, would need a sum across lanes for every score.
//! - A workgroup owns some rows of one key head, with all query heads that share it. A few queries (decode) widen half
//!   floats as they read them, strip by strip of the cache and none beyond the context; many (prefill) share a block
//!   that was widened once. Widening is exact, so the bits are the same.
//! - A masked key has weight exactly 0, which changes no sum: so it does not matter whether a key that a row cannot
//!   see is skipped or computed for the sake of its neighbour. What nobody wrote may be no number: its scores are
//!   overwritten and its values not read.
//!
//! The GPU form is described in `gpu.rs`.
//!
//! Known gap: on the CPU one row is not split along its keys, so a single sequence uses no more workers than it has key
//! heads.

mod block;
mod gpu;
mod kernel;
mod multiply;
#[cfg(test)]
mod tests;
mod turned;

pub use turned::TurnedAttention;

use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};

use crate::kv::KvType;
use crate::linear::{Int8Params, check_int8};
use crate::{Activations, Catalog, Op, bounds};

/// `out = softmax(q · keysᵀ · scale) · values`, for each row and head.
///
/// Rows of one sequence stand together, at consecutive positions.
#[derive(Clone, Debug)]
pub struct Attention {
    /// f32 `[rows, heads * head_dim]`.
    pub q: Slice,
    /// `[cache_rows / 16, kv_heads, head_dim, 16]`: keys lie turned, see [`crate::kv`].
    pub key_cache: Slice,
    /// `[cache_rows / 16, kv_heads, 16, head_dim]`.
    pub value_cache: Slice,
    /// Elements of both caches.
    pub kv_type: KvType,
    /// Rows of both caches; a multiple of [`STRIP`](crate::kv::STRIP).
    pub cache_rows: usize,
    /// Positions of a block, a multiple of [`STRIP`](crate::kv::STRIP): block `b` is the cache's rows `b * block_size..(b + 1) * block_size`.
    pub block_size: usize,
    /// `[rows, heads * head_dim]`. Int8 groups must divide `head_dim`: see [`Attention::quantises`].
    pub out: Activations,
    /// u32 `[rows]`: the sequence of a row, an index into `block_tables`.
    pub row_seq: Slice,
    /// u32 `[rows]`: the position of a row.
    pub positions: Slice,
    /// u32 `[seqs, blocks_per_seq]`: the blocks of each sequence. Keys of a block outside the cache count as zeros.
    pub block_tables: Slice,
    /// Columns of `block_tables`.
    pub blocks_per_seq: usize,
    /// Rows.
    pub rows: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// With a window `w`, position `t` sees keys `t - w + 1..=t`.
    pub window: Option<usize>,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    block_size: u32,
    blocks_per_seq: u32,
    scale: f32,
    /// `u32::MAX`: none.
    window: u32,
    /// Of rows that go out as int8.
    int8: Int8Params,
}

impl Attention {
    /// Whether heads of `head_dim` columns can go out as int8 in groups of `group`: a head is made of whole groups.
    pub fn quantises(head_dim: usize, group: usize) -> bool {
        group > 0 && head_dim.is_multiple_of(group)
    }

    fn check(&self) -> Result<()> {
        let Self { rows, heads, kv_heads, head_dim, cache_rows, block_size, blocks_per_seq, .. } = *self;
        let op = "attention";
        bounds::rule(op, kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads), || {
            format!("heads ({heads}) must be a multiple of kv_heads ({kv_heads}), and not 0")
        })?;
        bounds::rule(op, head_dim > 0 && block_size > 0 && self.window != Some(0), || {
            format!("head_dim ({head_dim}), block_size ({block_size}) and the window must not be 0")
        })?;
        bounds::strips(op, "block_size", block_size)?;
        bounds::strips(op, "cache_rows", cache_rows)?;
        bounds::holds::<f32>(op, "q", &self.q, &[rows, heads, head_dim])?;
        match &self.out {
            Activations::F32(out) => bounds::holds::<f32>(op, "out", out, &[rows, heads, head_dim])?,
            Activations::Int8(out) | Activations::Int8x2(out) => {
                bounds::rule(op, Self::quantises(head_dim, out.group), || {
                    format!(
                        "heads of {head_dim} are no whole groups of {}: take f32 and quantise that",
                        out.group
                    )
                })?;
                check_int8(op, out, rows * Int8Params::new(&self.out).terms(), heads * head_dim)?;
            }
        }
        let cache_bytes = [cache_rows, kv_heads, head_dim, self.kv_type.size()];
        bounds::holds::<u8>(op, "key_cache", &self.key_cache, &cache_bytes)?;
        bounds::holds::<u8>(op, "value_cache", &self.value_cache, &cache_bytes)?;
        bounds::holds::<u32>(op, "row_seq", &self.row_seq, &[rows])?;
        bounds::holds::<u32>(op, "positions", &self.positions, &[rows])?;
        bounds::holds::<u32>(op, "block_tables", &self.block_tables, &[blocks_per_seq])
    }
}

impl Attention {
    fn params(&self) -> Params {
        Params {
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            head_dim: self.head_dim as u32,
            block_size: self.block_size as u32,
            blocks_per_seq: self.blocks_per_seq as u32,
            scale: self.scale,
            window: self.window.map_or(u32::MAX, |window| window.min(u32::MAX as usize) as u32),
            int8: Int8Params::new(&self.out),
        }
    }
}

impl Op for Attention {
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        gpu::launches(self, None, catalog, limits, scratch)
    }

    fn gpu_scratch(&self, limits: &GpuLimits) -> usize {
        gpu::scratch(self, limits)
    }

    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, heads, kv_heads, head_dim, cache_rows, .. } = *self;
        self.check()?;
        let group = heads / kv_heads;
        let tiling = Tiling {
            rows,
            cols: heads * head_dim,
            tile_rows: tile_rows(rows, group, kv_heads, catalog.workers()),
            tile_cols: group * head_dim,
        };
        let params = self.params();
        // Only the rows that the operation names: the kernel takes the slice's end for the cache's.
        let row_bytes = (kv_heads * head_dim * self.kv_type.size()) as u64;
        let cache = |slice: &Slice| slice.slice(0, cache_rows as u64 * row_bytes).map(Binding::read);
        let mut bindings = vec![
            Binding::read(self.q.clone()),
            cache(&self.key_cache)?,
            cache(&self.value_cache)?,
            Binding::read(self.row_seq.clone()),
            Binding::read(self.positions.clone()),
            Binding::read(self.block_tables.clone()),
        ];
        match &self.out {
            Activations::F32(out) => bindings.push(Binding::write(out.clone(), tiling)),
            Activations::Int8(out) | Activations::Int8x2(out) => {
                bindings.extend(params.int8.bind(out, tiling));
            }
        }
        Ok(Dispatch {
            pipeline: catalog.pipeline(match self.kv_type {
                KvType::F32 => &kernel::F32,
                KvType::F16 => &kernel::F16,
            })?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: tiling.grid(),
        })
    }
}

/// Rows of a workgroup when `group` query heads share a key head: as many as make good use of a block of keys once it
/// is widened, but fewer where that would leave workers without work.
fn tile_rows(rows: usize, group: usize, kv_heads: usize, workers: usize) -> usize {
    const QUERIES: usize = 128;
    let groups_wanted = if workers == 1 { 1 } else { 4 * workers };
    let mut tile = QUERIES.div_ceil(group).min(rows).max(1);
    // A workgroup of fewer than 16 queries spends more time on keys than on scores.
    while tile > 1 && tile * group > 16 && kv_heads * rows.div_ceil(tile) < groups_wanted {
        tile = tile.div_ceil(2);
    }
    while tile > 1 && kv_heads * rows.div_ceil(tile) < workers {
        tile = tile.div_ceil(2);
    }
    tile
}
