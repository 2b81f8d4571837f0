//! Attention of one row whose heads are turned on the way, without a launch between them.

use bessemer_hal::cpu::{Invocation, Tile};
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};
use half::f16;

use super::kernel::{Inputs, Out, attend};
use super::{Attention, Params, gpu};
use crate::kv::{KvElement, KvType, STRIP};
use crate::linear::Int8Tiles;
use crate::rope::{RopeInputs, RopeKv, RopeParams, turn};
use crate::{Activations, Catalog, Isa, Kernel, Op, bounds};

/// [`RopeKv`] and then [`Attention`] of one row, in one launch of a GPU (or two, where the context is long), to the bit: see
/// [`TurnedAttention::takes`].
///
/// Between them they have the same caches, and `turn.q_out` is `attention.q`; what it holds afterwards is undefined. The row is
/// stored where its block table has its position, if `turn.slots` has a row of the cache for it: the same one.
#[derive(Clone, Debug)]
pub struct TurnedAttention {
    /// What comes first.
    pub turn: RopeKv,
    /// What follows.
    pub attention: Attention,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TurnedParams {
    turn: RopeParams,
    attention: Params,
}

static F32: Kernel = Kernel { name: "turned_attention_f32", cpu: kernel::<f32> };
static F16: Kernel = Kernel { name: "turned_attention_f16", cpu: kernel::<f16> };

impl TurnedAttention {
    /// Whether a GPU has a launch for it: one row of heads of 64 or 128 columns, not too many of them in a workgroup, and a context
    /// that is not for matrix units.
    pub fn takes(attention: &Attention, limits: &GpuLimits) -> bool {
        gpu::turns(attention, limits)
    }

    fn check(&self) -> Result<()> {
        let Self { turn, attention } = self;
        let op = "turned_attention";
        turn.check()?;
        attention.check()?;
        bounds::rule(op, turn.rows == 1 && attention.rows == 1, || {
            format!("one row is taken, not {}: record its two parts", attention.rows)
        })?;
        let same = |a: &Slice, b: &Slice| a.buffer().id() == b.buffer().id() && a.offset() == b.offset();
        let agree = (turn.heads, turn.kv_heads, turn.head_dim, turn.cache_rows, turn.kv_type)
            == (
                attention.heads,
                attention.kv_heads,
                attention.head_dim,
                attention.cache_rows,
                attention.kv_type,
            );
        let shared = same(&turn.q_out, &attention.q)
            && same(&turn.key_cache, &attention.key_cache)
            && same(&turn.value_cache, &attention.value_cache);
        bounds::rule(op, agree && shared, || {
            "its two parts must have the same heads, queries and caches".to_string()
        })
    }
}

impl Op for TurnedAttention {
    /// One piece: a CPU shares each of the two among its threads.
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        self.check()?;
        let Self { turn, attention } = self;
        let whole = |cols| Tiling::by_cols(1, cols, cols);
        let cols = attention.heads * attention.head_dim;
        let cache = whole(attention.cache_rows * attention.kv_heads * attention.head_dim);
        let params = TurnedParams { turn: turn.params(), attention: attention.params() };
        let mut bindings = turn.inputs().to_vec();
        let tables = [&attention.row_seq, &attention.positions, &attention.block_tables];
        bindings.extend(tables.map(|slice| Binding::read(slice.clone())));
        bindings.push(Binding::write(turn.q_out.clone(), whole(cols)));
        bindings
            .extend([&turn.key_cache, &turn.value_cache].map(|slice| Binding::write(slice.clone(), cache)));
        match &attention.out {
            Activations::F32(out) => bindings.push(Binding::write(out.clone(), whole(cols))),
            Activations::Int8(out) | Activations::Int8x2(out) => {
                bindings.extend(params.attention.int8.bind(out, whole(cols)));
            }
        }
        Ok(Dispatch {
            pipeline: catalog.pipeline(match attention.kv_type {
                KvType::F32 => &F32,
                KvType::F16 => &F16,
            })?,
            bindings,
            params: bytemuck::bytes_of(&params).to_vec(),
            groups: whole(cols).grid(),
        })
    }

    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, scratch: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        bounds::rule("turned_attention", gpu::turns(&self.attention, limits), || {
            "this device has no launch for such a row: record its two parts".to_string()
        })?;
        gpu::launches(&self.attention, Some(&self.turn), catalog, limits, scratch)
    }

    fn gpu_scratch(&self, limits: &GpuLimits) -> usize {
        gpu::scratch(&self.attention, limits)
    }
}

fn kernel<E: KvElement>(invocation: &mut Invocation<'_>) {
    let TurnedParams { turn: turned, attention } = invocation.params();
    let inputs = RopeInputs::take(invocation);
    let (row_seq, positions, block_tables) = (invocation.input(7), invocation.input(8), invocation.input(9));
    let mut q = invocation.output::<f32>(10);
    let (mut keys, mut values): (Tile<'_, E>, Tile<'_, E>) = (invocation.output(11), invocation.output(12));
    let (kv_heads, head_dim) = (attention.kv_heads as usize, attention.head_dim as usize);
    let group_cols = attention.heads as usize / kv_heads * head_dim;
    let (q_cols, strip) = (kv_heads * group_cols, head_dim * STRIP);
    for head in 0..kv_heads {
        let cols = head * group_cols..(head + 1) * group_cols;
        let stored = head * strip..(head + 1) * strip;
        let mut keys = Tile::from_slice(keys.row_mut(0), kv_heads * strip, stored.clone());
        let mut values = Tile::from_slice(values.row_mut(0), kv_heads * strip, stored);
        turn(turned, inputs, &mut Tile::from_slice(q.row_mut(0), q_cols, cols), &mut keys, &mut values);
    }

    let inputs =
        Inputs { q: q.row(0), keys: keys.row(0), values: values.row(0), row_seq, positions, block_tables };
    let mut rows = vec![0.0; q_cols];
    for head in 0..kv_heads {
        let cols = head * group_cols..(head + 1) * group_cols;
        let mut out = Out::F32(Tile::from_slice(&mut rows, q_cols, cols));
        attend(Isa::detect(), attention, inputs, &mut out);
    }
    match attention.int8.terms() {
        0 => invocation.output(13).row_mut(0).copy_from_slice(&rows),
        _ => Int8Tiles::take(invocation, 13, attention.int8).write(0, &rows),
    }
}
