//! Operands that are no zeros: weights, activations, caches, choices of experts.

use bessemer_hal::Slice;
use bessemer_kernels::attention::Attention;
use bessemer_kernels::linear::{
    Encoding, Experts, LANES, LinearLayout, LinearShape, ScaleType, SlotInput, SlotOrder, Source, Weights,
    pack,
};
use bessemer_kernels::rms_norm::NormOutput;
use bessemer_kernels::{Activations, KvType, QuantisedRows};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::bench::Bench;
use super::operations::Rows;

/// Columns of a head, in both models.
pub(super) const HEAD_DIM: usize = 128;
/// Inputs that share an activation scale.
pub(super) const GROUP: usize = 64;
/// Positions of a block of the KV cache.
pub(super) const BLOCK: usize = 16;

/// Experts of the sparse model, and how many a row visits.
pub(super) const EXPERTS: usize = 128;
pub(super) const TOP_K: usize = 8;

/// 4 bits by groups of 64, scales in 16 bits: the commonest format.
pub(super) fn layout(experts: usize, out: usize, inp: usize) -> LinearLayout {
    let shape = LinearShape { experts, out, inp };
    LinearLayout::new(Encoding::Affine { bits: 4 }, shape, GROUP, ScaleType::Bf16)
        .unwrap_or_else(|error| panic!("a shape of the list is a shape: {error}"))
}

/// Packed weights: one panel of random codes, over and over.
pub(super) fn weights(bench: &Bench, layout: LinearLayout) -> anyhow::Result<Weights> {
    let panel = self::layout(1, LANES, layout.inp());
    let mut random = SmallRng::seed_from_u64(2);
    let codes: Vec<u8> = (0..LANES * layout.inp() / 2).map(|_| random.random()).collect();
    let scales: Vec<u8> = (0..LANES * layout.inp() / GROUP).flat_map(|_| [0x23, 0x3c]).collect(); // about 0.01
    let source = Source { weights: &codes, scales: Some((ScaleType::Bf16, &scales)), biases: Some(&scales) };
    let mut packed = vec![0; panel.bytes()];
    pack(&panel, &source, 0..1, &mut packed)?;
    Ok(Weights { layout, packed: bench.filled(layout.bytes(), &packed)?, bias: None })
}

/// Activations that are no zeros. For a product, [`Rows::F32AndInt8`] are int8.
pub(super) fn activations(bench: &Bench, rows: usize, dim: usize, of: Rows) -> anyhow::Result<Activations> {
    Ok(match of {
        Rows::F32 => Activations::F32(bench.filled(rows * dim * 4, &0.1_f32.to_le_bytes())?),
        Rows::Int8 | Rows::F32AndInt8 => int8(bench, rows, dim)?,
        Rows::Int8x2 => Activations::Int8x2(quantised(bench, 2 * rows, dim)?),
    })
}

/// Quantised activations that are no zeros.
pub(super) fn int8(bench: &Bench, rows: usize, dim: usize) -> anyhow::Result<Activations> {
    Ok(Activations::Int8(quantised(bench, rows, dim)?))
}

fn quantised(bench: &Bench, rows: usize, dim: usize) -> anyhow::Result<QuantisedRows> {
    let mut random = SmallRng::seed_from_u64(3);
    let codes: Vec<i8> = (0..dim).map(|_| random.random_range(-127..=127)).collect();
    let groups = rows * dim / GROUP;
    Ok(QuantisedRows {
        codes: bench.filled(rows * dim, bytemuck::cast_slice(&codes))?,
        scales: bench.filled(groups * 4, &0.01_f32.to_le_bytes())?,
        sums: bench.room(groups * 4)?,
        group: GROUP,
    })
}

/// Room for what a norm makes.
pub(super) fn normed(bench: &Bench, rows: usize, dim: usize, to: Rows) -> anyhow::Result<NormOutput> {
    Ok(match to {
        Rows::F32AndInt8 => {
            NormOutput::Both { f32: bench.room(rows * dim * 4)?, int8: quantised(bench, rows, dim)? }
        }
        one => activations(bench, rows, dim, one)?.into(),
    })
}

/// Rows at the end of their contexts: of one sequence when they are many, of a sequence each when they are few.
pub(super) fn attention(
    bench: &Bench,
    (rows, seqs): (usize, usize),
    (heads, kv_heads): (usize, usize),
    context: usize,
    cache_rows: usize,
) -> anyhow::Result<Attention> {
    let per_seq = rows / seqs;
    let blocks_per_seq = context.div_ceil(BLOCK);
    let mut blocks: Vec<u32> = (0..(cache_rows / BLOCK) as u32).collect();
    blocks.shuffle(&mut SmallRng::seed_from_u64(4));
    let positions: Vec<u32> = (0..rows).map(|row| (context - per_seq + row % per_seq) as u32).collect();
    let cache = cache_rows * kv_heads * HEAD_DIM * 2;
    let half = half_pattern();
    Ok(Attention {
        q: bench.filled(rows * heads * HEAD_DIM * 4, &0.1_f32.to_le_bytes())?,
        key_cache: bench.filled(cache, &half)?,
        value_cache: bench.filled(cache, &half)?,
        kv_type: KvType::F16,
        cache_rows,
        block_size: BLOCK,
        out: int8(bench, rows, heads * HEAD_DIM)?,
        row_seq: bench.put(&(0..rows).map(|row| (row / per_seq) as u32).collect::<Vec<_>>())?,
        positions: bench.put(&positions)?,
        block_tables: bench.put(&blocks)?,
        blocks_per_seq,
        rows,
        heads,
        kv_heads,
        head_dim: HEAD_DIM,
        scale: 0.088,
        window: None,
    })
}

/// Half floats between −1 and 1.
fn half_pattern() -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(5);
    (0..1024)
        .flat_map(|_| {
            (random.random_range(0x2c00..0x3c00_u16) | (random.random::<u16>() & 0x8000)).to_le_bytes()
        })
        .collect()
}

/// The experts that rows choose at random.
pub(super) fn chosen(rows: usize, seed: u64) -> Vec<u32> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut all: Vec<u32> = (0..EXPERTS as u32).collect();
    let mut choices = || {
        all.shuffle(&mut random);
        all[..TOP_K].to_vec()
    };
    (0..rows).flat_map(|_| choices()).collect()
}

/// Rows that choose their experts at random.
pub(super) fn experts(
    bench: &Bench,
    weights: &Weights,
    rows: usize,
    token: bool,
    seed: u64,
) -> anyhow::Result<Experts> {
    let ids = chosen(rows, seed);
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|slot| ids[*slot as usize]);
    let offsets: Vec<u32> =
        (0..=EXPERTS as u32).map(|expert| ids.iter().filter(|id| **id < expert).count() as u32).collect();
    let (input, inputs) = match token {
        true => (SlotInput::Token { top_k: TOP_K as u32 }, rows),
        false => (SlotInput::Slot, rows * TOP_K),
    };
    let out: Slice = bench.room(ids.len() * weights.layout.out() * 4)?;
    Ok(Experts {
        x: int8(bench, inputs, weights.layout.inp())?,
        weights: weights.clone(),
        ids: bench.put(&ids)?,
        order: Some(SlotOrder { offsets: bench.put(&offsets)?, order: bench.put(&order)? }),
        input,
        out,
        slots: ids.len(),
    })
}
