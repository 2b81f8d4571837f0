//! Cosines and sines of positions, and heads on their way to attention and the KV cache.

use bessemer_kernels::kv::STRIP;
use bessemer_kernels::rope::{RopeKv, RopeLayout, RopeScaling, RopeTable, inv_freq};
use bessemer_kernels::{KvType, View};
use half::f16;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::data::{floats, one_of, permutation};
use crate::{Both, Check, Failure, Outcome, Side, Tolerance, Twin, compare, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "table", run: table },
    Check { name: "usual_heads", run: usual_heads },
    Check { name: "odd_heads", run: odd_heads },
    Check { name: "half_precision_saturates", run: saturation },
];

fn table(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for most in [8, 5_000, 1 << 17, 1 << 24] {
        let (rows, rot) = (rng.random_range(1..=70), 2 * rng.random_range(1..100));
        let positions: Vec<u32> = (0..rows).map(|_| rng.random_range(0..most)).collect();
        let theta = one_of(rng, &[1e4, 5e5, 1e6]);
        let freqs = inv_freq(&RopeScaling::None, theta, rot, 4096).0;
        let (positions, freqs) = (twin.put(&positions)?, twin.put(&freqs)?);
        let out = twin.rubbish::<f32>(rows * rot)?;
        let attention_factor = one_of(rng, &[1.0, 1.2]);
        twin.run(|side| RopeTable {
            positions: positions.on(side),
            inv_freq: freqs.on(side),
            attention_factor,
            out: out.on(side),
            rows,
            rot,
        })?;
        let (want, got) = (twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
        let what = format!("{rows} positions below {most}, {rot} columns");
        compare(&what, &want, &got, Tolerance::new(4e-7, 0.0))?;
    }
    Ok(())
}

fn usual_heads(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for head_dim in [64, 128, 256] {
        let rot = one_of(rng, &[head_dim, head_dim / 2]);
        heads(twin, rng, head_dim, rot, 1.0)?;
    }
    Ok(())
}

fn odd_heads(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for most in [40, 200, 1024] {
        let head_dim = rng.random_range(2..=most);
        let rot = 2 * rng.random_range(1..=head_dim / 2);
        heads(twin, rng, head_dim, rot, 1.0)?;
    }
    Ok(())
}

/// Keys and values that no half float holds.
fn saturation(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    heads(twin, rng, 64, 64, 3e5)
}

/// Caches of every type, pairs of every layout, with and without norms.
fn heads(twin: &Twin, rng: &mut SmallRng, head_dim: usize, rot: usize, size: f32) -> Outcome {
    for kv_type in [KvType::F32, KvType::F16] {
        for layout in [RopeLayout::Halves, RopeLayout::Interleaved] {
            Case::draw(twin, rng, (head_dim, rot), (kv_type, layout), size)?.run(twin)?;
        }
    }
    Ok(())
}

/// One launch with its operands.
struct Case {
    qkv: Both,
    norms: [Option<Both>; 2],
    table: Both,
    slots: Both,
    q_out: Both,
    keys: Both,
    values: Both,
    kv_type: KvType,
    layout: RopeLayout,
    cache_rows: usize,
    rows: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rot: usize,
    /// Columns before those of the queries.
    margin: usize,
    /// What values are at most, more or less.
    size: f32,
}

impl Case {
    fn draw(
        twin: &Twin,
        rng: &mut SmallRng,
        (head_dim, rot): (usize, usize),
        (kv_type, layout): (KvType, RopeLayout),
        size: f32,
    ) -> Result<Self, Failure> {
        let (rows, kv_heads) = (rng.random_range(1..=20), rng.random_range(1..=3));
        let heads = kv_heads * rng.random_range(1..=4);
        let margin = rng.random_range(0..3);
        let stride = margin + (heads + 2 * kv_heads) * head_dim;
        let cache_rows = STRIP * rng.random_range(1..=4);
        // Each slot at most once, and some rows that are not stored.
        let mut slots = permutation(rng, cache_rows + 8);
        slots[rng.random_range(0..cache_rows)] = u32::MAX;
        slots.truncate(rows);
        let mut norm =
            || Ok::<_, Failure>(if rng.random() { Some(twin.put(&floats(rng, head_dim))?) } else { None });
        let norms = [norm()?, norm()?];
        let qkv: Vec<f32> = floats(rng, rows * stride).into_iter().map(|x| x * size).collect();
        let table: Vec<f32> = floats(rng, rows * rot);
        // More memory than the cache has rows: what is written there is noticed.
        let cache = (cache_rows + STRIP) * kv_heads * head_dim * kv_type.size();
        Ok(Self {
            qkv: twin.put(&qkv)?,
            norms,
            table: twin.put(&table)?,
            slots: twin.put(&slots)?,
            q_out: twin.rubbish::<f32>(rows * heads * head_dim)?,
            keys: twin.rubbish::<u8>(cache)?,
            values: twin.rubbish::<u8>(cache)?,
            kv_type,
            layout,
            cache_rows,
            rows,
            heads,
            kv_heads,
            head_dim,
            rot,
            margin,
            size,
        })
    }

    fn op(&self, side: Side) -> RopeKv {
        let Self { heads, kv_heads, head_dim, margin, .. } = *self;
        let stride = margin + (heads + 2 * kv_heads) * head_dim;
        let view = |offset: usize| View { slice: self.qkv.on(side), stride, offset };
        let norm = |norm: &Option<Both>| norm.as_ref().map(|norm| norm.on(side));
        RopeKv {
            q: view(margin),
            k: view(margin + heads * head_dim),
            v: view(margin + (heads + kv_heads) * head_dim),
            q_norm: norm(&self.norms[0]),
            k_norm: norm(&self.norms[1]),
            eps: 1e-6,
            table: self.table.on(side),
            slots: self.slots.on(side),
            q_out: self.q_out.on(side),
            key_cache: self.keys.on(side),
            value_cache: self.values.on(side),
            kv_type: self.kv_type,
            cache_rows: self.cache_rows,
            rows: self.rows,
            heads,
            kv_heads,
            head_dim,
            rot: self.rot,
            layout: self.layout,
        }
    }

    fn run(&self, twin: &Twin) -> Outcome {
        twin.run(|side| self.op(side))?;
        let what = format!(
            "{} rows, {}+{} heads of {}, {} turn ({:?}), norms {:?}, {:?} cache of {}",
            self.rows,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.rot,
            self.layout,
            self.norms.each_ref().map(Option::is_some),
            self.kv_type,
            self.cache_rows
        );
        let close = Tolerance::new(2e-6 * self.size, 1e-5);
        let (want, got) = (twin.get(Side::Cpu, &self.q_out)?, twin.get(Side::Device, &self.q_out)?);
        compare(&format!("q, {what}"), &want, &got, close)?;
        // Values are copied or rounded; keys are computed first, and may round to the neighbour.
        let values = |side| twin.get::<u8>(side, &self.values);
        equal(&format!("values, {what}"), &values(Side::Cpu)?, &values(Side::Device)?)?;
        let (want, got) = (self.keys(twin, Side::Cpu)?, self.keys(twin, Side::Device)?);
        let close = match self.kv_type {
            KvType::F32 => close,
            KvType::F16 => Tolerance::new(2e-6 * self.size, 1.1e-3),
        };
        compare(&format!("keys, {what}"), &want, &got, close)
    }

    fn keys(&self, twin: &Twin, side: Side) -> Result<Vec<f32>, Failure> {
        match self.kv_type {
            KvType::F32 => twin.get(side, &self.keys),
            KvType::F16 => Ok(twin.get::<f16>(side, &self.keys)?.into_iter().map(f16::to_f32).collect()),
        }
    }
}
