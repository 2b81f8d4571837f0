//! Attention of a row whose heads are turned on the way: what its two parts give, to the bit.

use bessemer_kernels::attention::{Attention, TurnedAttention};
use bessemer_kernels::rope::{RopeKv, RopeLayout};
use bessemer_kernels::{Activations, View};
use rand::{Rng, rngs::SmallRng};

use super::{Case, Chunk, TOLERANCE, window};
use crate::kernels::int8::Codes;
use crate::{Both, Check, Failure, Outcome, Side, Twin, compare, data, equal};

pub(crate) const CHECKS: &[Check] = &[
    Check { name: "short_contexts", run: short_contexts },
    Check { name: "many_heads_and_splits", run: many_heads_and_splits },
    Check { name: "rows_that_are_not_stored", run: rows_that_are_not_stored },
];

/// What comes before attention.
struct Turn {
    qkv: Both,
    norms: [Option<Both>; 2],
    table: Both,
    slots: Both,
    rot: usize,
    layout: RopeLayout,
    /// Columns before those of the queries.
    margin: usize,
}

impl Turn {
    fn draw(twin: &Twin, rng: &mut SmallRng, case: &Case, stored: bool) -> Result<Self, Failure> {
        let head_dim = case.head_dim;
        let margin = rng.random_range(0..3);
        let rot = data::one_of(rng, &[head_dim, head_dim, head_dim / 2, 6, 0]);
        let mut norm = || {
            Ok::<_, Failure>(if rng.random() { Some(twin.put(&data::floats(rng, head_dim))?) } else { None })
        };
        let norms = [norm()?, norm()?];
        let qkv = data::floats(rng, margin + (case.heads + 2 * case.kv_heads) * head_dim);
        let position = case.chunks[0].position;
        let slot = case.tables[position / case.block_size] * case.block_size as u32
            + (position % case.block_size) as u32;
        Ok(Self {
            qkv: twin.put(&qkv)?,
            norms,
            table: twin.put(&data::floats(rng, rot))?,
            slots: twin.put(&[if stored { slot } else { u32::MAX }])?,
            rot,
            layout: data::one_of(rng, &[RopeLayout::Halves, RopeLayout::Interleaved]),
            margin,
        })
    }
}

/// The caches, and what goes between the two parts.
struct Memory {
    q: Both,
    keys: Both,
    values: Both,
}

impl Memory {
    fn new(twin: &Twin, case: &Case) -> Result<Self, Failure> {
        Ok(Self {
            q: twin.rubbish::<f32>(case.heads * case.head_dim)?,
            keys: case.cache(twin, &case.keys)?,
            values: case.cache(twin, &case.values)?,
        })
    }

    fn op(
        &self,
        side: Side,
        case: &Case,
        turn: &Turn,
        tables: &[Both; 3],
        out: Activations,
    ) -> TurnedAttention {
        let Case { heads, kv_heads, head_dim, kv_type, cache_rows, .. } = *case;
        let view = |heads: usize| View {
            slice: turn.qkv.on(side),
            stride: turn.margin + (case.heads + 2 * kv_heads) * head_dim,
            offset: turn.margin + heads * head_dim,
        };
        let norm = |norm: &Option<Both>| norm.as_ref().map(|norm| norm.on(side));
        let (key_cache, value_cache) = (self.keys.on(side), self.values.on(side));
        let [row_seq, positions, block_tables] = tables.each_ref().map(|table| table.on(side));
        TurnedAttention {
            turn: RopeKv {
                q: view(0),
                k: view(heads),
                v: view(heads + kv_heads),
                q_norm: norm(&turn.norms[0]),
                k_norm: norm(&turn.norms[1]),
                eps: 1e-6,
                table: turn.table.on(side),
                slots: turn.slots.on(side),
                q_out: self.q.on(side),
                key_cache: key_cache.clone(),
                value_cache: value_cache.clone(),
                kv_type,
                cache_rows,
                rows: 1,
                heads,
                kv_heads,
                head_dim,
                rot: turn.rot,
                layout: turn.layout,
            },
            attention: Attention {
                q: self.q.on(side),
                key_cache,
                value_cache,
                kv_type,
                cache_rows,
                block_size: case.block_size,
                out,
                row_seq,
                positions,
                block_tables,
                blocks_per_seq: case.blocks_per_seq,
                rows: 1,
                heads,
                kv_heads,
                head_dim,
                scale: (head_dim as f32).powf(-0.5),
                window: case.window,
            },
        }
    }
}

/// In one launch on both devices, and in two parts on the one that is checked.
fn check(twin: &Twin, rng: &mut SmallRng, case: &Case, stored: bool) -> Outcome {
    let turn = Turn::draw(twin, rng, case, stored)?;
    let width = case.heads * case.head_dim;
    let tables = [twin.put(&[0_u32])?, twin.put(&[case.chunks[0].position as u32])?, twin.put(&case.tables)?];
    let what = format!("{}, {} turn ({:?}), stored: {stored}", case.name(), turn.rot, turn.layout);

    let (fused, apart) = (Memory::new(twin, case)?, Memory::new(twin, case)?);
    let (out, out_apart) = (twin.rubbish::<f32>(width)?, twin.rubbish::<f32>(width)?);
    let f32 = |out: &Both, side| Activations::F32(out.on(side));
    let op = |side| fused.op(side, case, &turn, &tables, f32(&out, side));
    if twin.gpu().is_some_and(|limits| !TurnedAttention::takes(&op(Side::Device).attention, limits)) {
        return Ok(());
    }
    twin.run(op)?;
    let parts = apart.op(Side::Device, case, &turn, &tables, f32(&out_apart, Side::Device));
    twin.run_on(Side::Device, &parts.turn)?;
    twin.run_on(Side::Device, &parts.attention)?;
    for (name, fused, apart) in [
        ("out", &out, &out_apart),
        ("keys", &fused.keys, &apart.keys),
        ("values", &fused.values, &apart.values),
    ] {
        let (got, want) = (twin.get::<u8>(Side::Device, fused)?, twin.get::<u8>(Side::Device, apart)?);
        equal(&format!("{name} beside those of its two parts, {what}"), &want, &got)?;
    }
    compare(&what, &twin.get(Side::Cpu, &out)?, &twin.get(Side::Device, &out)?, TOLERANCE)?;

    let group = data::one_of(rng, &[32, 64]);
    for terms in [1, 2] {
        let rows = [Codes::new(twin, terms, width, group)?, Codes::new(twin, terms, width, group)?];
        let int8 = |rows: &Codes, side| match terms {
            1 => Activations::Int8(rows.on(side)),
            _ => Activations::Int8x2(rows.on(side)),
        };
        twin.run(|side| fused.op(side, case, &turn, &tables, int8(&rows[0], side)))?;
        let parts = apart.op(Side::Device, case, &turn, &tables, int8(&rows[1], Side::Device));
        twin.run_on(Side::Device, &parts.turn)?;
        twin.run_on(Side::Device, &parts.attention)?;
        let [got, want] = [rows[0].get(twin, Side::Device)?, rows[1].get(twin, Side::Device)?];
        equal(
            &format!("codes in {terms} terms beside those of its two parts, {what}"),
            &want.codes,
            &got.codes,
        )?;
        equal(&format!("scales in {terms} terms, {what}"), &bits(&want.scales), &bits(&got.scales))?;
    }
    Ok(())
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A case of one row, whose own key and value the cache has not yet.
fn draw(rng: &mut SmallRng, shape: (usize, usize, usize), longest: usize) -> Case {
    let (window, position) = (window(rng), rng.random_range(0..longest));
    let mut case = Case::new(rng, shape, window, vec![Chunk { position, rows: 1 }]);
    case.blank(0, position);
    case
}

fn short_contexts(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for longest in [1, 40, 129, 700] {
        let kv_heads = rng.random_range(1..=4);
        let heads = kv_heads * rng.random_range(1..=9);
        let head_dim = data::one_of(rng, &[64, 128]);
        let case = draw(rng, (heads, kv_heads, head_dim), longest);
        check(twin, rng, &case, true)?;
    }
    Ok(())
}

/// So many that a workgroup takes four heads.
fn many_heads_and_splits(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let kv_heads = 8;
    let heads = kv_heads * rng.random_range(3..=9);
    let head_dim = data::one_of(rng, &[64, 128]);
    let (window, position) = (window(rng), rng.random_range(1400..1900));
    let mut case = Case::new(rng, (heads, kv_heads, head_dim), window, vec![Chunk { position, rows: 1 }]);
    case.blank(0, position);
    check(twin, rng, &case, true)
}

/// What the cache has at the row's position is seen then.
fn rows_that_are_not_stored(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let head_dim = data::one_of(rng, &[64, 128]);
    let mut case = draw(rng, (6, 2, head_dim), 300);
    let position = case.chunks[0].position;
    case.fill(rng, 0, position);
    check(twin, rng, &case, false)
}
