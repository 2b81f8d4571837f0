//! Against the oracle, against f64, and bit for bit against itself.

use bessemer_hal::cpu::Tile;
use half::f16;

use super::kernel::{Inputs, Out, attend};
use super::{Params, tile_rows};
use crate::Isa;
use crate::golden::{Golden, Random};
use crate::kv::{KvElement, STRIP};

/// Sequences in a paged cache, with the queries of some of their positions.
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    window: Option<usize>,
    scale: f32,
    blocks_per_seq: usize,
    tables: Vec<u32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    rows: Vec<Row>,
}

#[derive(Clone)]
struct Row {
    seq: usize,
    position: usize,
    q: Vec<f32>,
}

impl Case {
    /// `lengths[i]` positions for sequence `i`, in scattered blocks, with queries for all of them.
    fn random(
        seed: u64,
        (heads, kv_heads, head_dim): (usize, usize, usize),
        block_size: usize,
        lengths: &[usize],
    ) -> Self {
        let mut random = Random(seed);
        let blocks_per_seq = lengths.iter().max().unwrap().div_ceil(block_size);
        let mut blocks: Vec<u32> = (0..(blocks_per_seq * lengths.len()) as u32).collect();
        for i in (1..blocks.len()).rev() {
            blocks.swap(i, random.below(i + 1));
        }
        let elements = blocks.len() * block_size * kv_heads * head_dim;
        let positions =
            lengths.iter().enumerate().flat_map(|(seq, &n)| (0..n).map(move |position| (seq, position)));
        let positions: Vec<_> = positions.collect();
        let mut case = Self {
            heads,
            kv_heads,
            head_dim,
            block_size,
            window: None,
            scale: (head_dim as f32).powf(-0.5),
            blocks_per_seq,
            tables: blocks,
            // What belongs to no position must not be touched.
            keys: vec![f32::NAN; elements],
            values: vec![f32::NAN; elements],
            rows: vec![],
        };
        for (seq, position) in positions {
            for head in 0..kv_heads {
                case.put(seq, position, head, &random.normal(head_dim), &random.normal(head_dim));
            }
            case.rows.push(Row { seq, position, q: random.normal(heads * head_dim) });
        }
        case
    }

    fn cache_row(&self, seq: usize, position: usize) -> usize {
        let block = self.tables[seq * self.blocks_per_seq + position / self.block_size] as usize;
        block * self.block_size + position % self.block_size
    }

    /// Where the head's column of a key and of a value lie.
    fn at(&self, seq: usize, position: usize, head: usize, d: usize) -> (usize, usize) {
        let row = self.cache_row(seq, position);
        let from = (row / STRIP * self.kv_heads + head) * STRIP * self.head_dim;
        (from + d * STRIP + row % STRIP, from + row % STRIP * self.head_dim + d)
    }

    fn put(&mut self, seq: usize, position: usize, head: usize, key: &[f32], value: &[f32]) {
        for (d, (&k, &v)) in key.iter().zip(value).enumerate() {
            let (key, value) = self.at(seq, position, head, d);
            (self.keys[key], self.values[value]) = (k, v);
        }
    }

    /// Runs the kernel on `rows`, in tiles of `tile` rows.
    fn run<E: KvElement>(&self, isa: Isa, rows: &[Row], tile: usize) -> Vec<f32> {
        let narrow = |from: &[f32]| {
            let mut to = vec![E::zeroed(); from.len()];
            E::narrow(&mut from.to_vec(), &mut to);
            to
        };
        let (keys, values) = (narrow(&self.keys), narrow(&self.values));
        let params = Params {
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            head_dim: self.head_dim as u32,
            block_size: self.block_size as u32,
            blocks_per_seq: self.blocks_per_seq as u32,
            scale: self.scale,
            window: self.window.map_or(u32::MAX, |window| window as u32),
            int8: bytemuck::Zeroable::zeroed(),
        };
        let cols = self.heads * self.head_dim;
        let mut out = vec![f32::NAN; rows.len() * cols];
        for (rows, out) in rows.chunks(tile).zip(out.chunks_mut(tile * cols)) {
            let q: Vec<f32> = rows.iter().flat_map(|row| row.q.clone()).collect();
            let row_seq: Vec<u32> = rows.iter().map(|row| row.seq as u32).collect();
            let positions: Vec<u32> = rows.iter().map(|row| row.position as u32).collect();
            for head in 0..self.kv_heads {
                let width = cols / self.kv_heads;
                let inputs = Inputs {
                    q: &q,
                    keys: &keys,
                    values: &values,
                    row_seq: &row_seq,
                    positions: &positions,
                    block_tables: &self.tables,
                };
                let tile = Tile::from_slice(out, cols, head * width..(head + 1) * width);
                attend(isa, params, inputs, &mut Out::F32(tile));
            }
        }
        out
    }

    /// The definition, in f64.
    fn reference(&self, row: &Row, widen: impl Fn(f32) -> f64) -> Vec<f64> {
        let (dim, group) = (self.head_dim, self.heads / self.kv_heads);
        let first = (row.position + 1).saturating_sub(self.window.unwrap_or(usize::MAX));
        let mut out = vec![];
        for (head, q) in row.q.chunks(dim).enumerate() {
            let at = |position, d| self.at(row.seq, position, head / group, d);
            let scores: Vec<f64> = (first..=row.position)
                .map(|t| {
                    let products =
                        q.iter().enumerate().map(|(d, &q)| f64::from(q) * widen(self.keys[at(t, d).0]));
                    products.sum::<f64>()
                })
                .map(|score| score * f64::from(self.scale))
                .collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dim {
                let sum: f64 = (first..=row.position)
                    .zip(&weights)
                    .map(|(t, weight)| weight * widen(self.values[at(t, d).1]))
                    .sum();
                out.push(sum / total);
            }
        }
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn agrees_with_the_oracle() {
    let golden = Golden::open("attention");
    for case in golden.cases() {
        let size = |name: &str| case[name].as_u64().unwrap() as usize;
        if size("head_dim") != size("v_dim") {
            continue; // Values of another width belong to another operation.
        }
        let key = case["key"].as_str().unwrap();
        let (heads, kv_heads, dim) = (size("heads"), size("kv_heads"), size("head_dim"));
        let (queries, keys) = (size("queries"), size("keys"));
        let mut ours = Case::random(1, (heads, kv_heads, dim), 16, &[keys]);
        ours.scale = case["scale"].as_f64().unwrap() as f32;
        ours.window = case["window"].as_u64().map(|window| window as usize);
        let [q, k, v, y] = ["q", "k", "v", "y"].map(|name| golden.f32(&format!("{key}.{name}")));
        for t in 0..keys {
            for head in 0..kv_heads {
                let from = (head * keys + t) * dim;
                ours.put(0, t, head, &k[from..][..dim], &v[from..][..dim]);
            }
        }
        let by_row = |x: &[f32], i: usize| -> Vec<f32> {
            (0..heads).flat_map(|head| x[(head * queries + i) * dim..][..dim].to_vec()).collect()
        };
        let rows: Vec<Row> =
            (0..queries).map(|i| Row { seq: 0, position: keys - queries + i, q: by_row(&q, i) }).collect();
        for isa in Isa::all_available() {
            let out = ours.run::<f32>(isa, &rows, queries);
            for (i, out) in out.chunks(heads * dim).enumerate() {
                let worst = out.iter().zip(by_row(&y, i)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{key} {isa:?} row {i}: off by {worst}");
            }
        }
    }
}

#[test]
fn odd_shapes_agree_with_f64() {
    for (seed, (heads, kv_heads, dim), block_size, lengths, window) in [
        (1, (4, 2, 24), 16, vec![150, 3, 65], None),
        (2, (7, 1, 96), 16, vec![70, 64], None),
        (3, (3, 3, 8), 48, vec![129, 1], Some(33)),
        (4, (8, 2, 128), 32, vec![140], Some(64)),
        (5, (5, 5, 40), 16, vec![66, 67], Some(1)),
        (6, (2, 1, 80), 128, vec![200], Some(1000)),
        (7, (2, 1, 20), 16, vec![67], None),
    ] {
        let mut case = Case::random(seed, (heads, kv_heads, dim), block_size, &lengths);
        case.window = window;
        let expected: Vec<f64> = case.rows.iter().flat_map(|row| case.reference(row, f64::from)).collect();
        let halves: Vec<f64> =
            case.rows.iter().flat_map(|row| case.reference(row, |x| f16::from_f32(x).to_f64())).collect();
        for isa in Isa::all_available() {
            for (out, expected) in [
                (case.run::<f32>(isa, &case.rows, 40), &expected),
                (case.run::<f16>(isa, &case.rows, 40), &halves),
                (case.run::<f16>(isa, &case.rows, 1), &halves),
            ] {
                let off = out.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).abs());
                let worst = off.fold(0.0, |m, x| if x.is_nan() { x } else { x.max(m) });
                assert!(worst < 2e-6, "seed {seed} {isa:?}: off by {worst}");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_however_it_is_launched() {
    for (seed, shape, window) in [(1, (4, 2, 32), None), (2, (7, 1, 24), Some(40)), (3, (2, 2, 64), None)] {
        let mut case = Case::random(seed, shape, 16, &[133, 1, 70]);
        case.window = window;
        for isa in Isa::all_available() {
            let whole = case.run::<f16>(isa, &case.rows, case.rows.len());
            for tile in [1, 2, 5, 31, 64] {
                assert_eq!(
                    bits(&whole),
                    bits(&case.run::<f16>(isa, &case.rows, tile)),
                    "{isa:?} tiles of {tile}"
                );
            }
            // Only every third row, in reverse: no two rows follow each other.
            let cols = case.heads * case.head_dim;
            let (some, expected): (Vec<Row>, Vec<Vec<f32>>) = case
                .rows
                .iter()
                .cloned()
                .zip(whole.chunks(cols).map(<[f32]>::to_vec))
                .rev()
                .step_by(3)
                .unzip();
            assert_eq!(bits(&expected.concat()), bits(&case.run::<f16>(isa, &some, 17)), "{isa:?}");
        }
    }
}

/// What decode reads as it lies in the cache, prefill widens first.
#[test]
fn a_token_that_decodes_has_the_bits_of_prefill() {
    for (seed, shape, window) in
        [(1, (4, 2, 128), None), (2, (6, 1, 48), Some(21)), (3, (3, 3, 24), None), (4, (8, 1, 64), Some(70))]
    {
        let mut case = Case::random(seed, shape, 32, &[97, 31]);
        case.window = window;
        for isa in Isa::all_available() {
            for (decode, prefill) in [
                (case.run::<f16>(isa, &case.rows, 1), case.run::<f16>(isa, &case.rows, 128)),
                (case.run::<f32>(isa, &case.rows, 1), case.run::<f32>(isa, &case.rows, 128)),
            ] {
                assert!(decode.iter().all(|x| x.is_finite()));
                assert_eq!(bits(&decode), bits(&prefill), "{isa:?} {shape:?}");
            }
        }
    }
}

#[test]
fn broken_tables_and_positions_do_not_break_the_kernel() {
    let mut case = Case::random(4, (4, 2, 24), 16, &[40]);
    case.tables[1] = u32::MAX;
    case.rows[7].seq = 1 << 31;
    case.rows[9].position = u32::MAX as usize;
    for isa in Isa::all_available() {
        assert_eq!(case.run::<f32>(isa, &case.rows, 8).len(), 40 * 4 * 24);
    }
}

#[test]
fn tiles_are_large_but_leave_no_worker_idle() {
    assert_eq!(tile_rows(1, 4, 8, 16), 1);
    assert_eq!(tile_rows(512, 4, 8, 2), 32);
    assert_eq!(tile_rows(512, 1, 8, 1), 128);
    for (rows, group, kv_heads, workers) in [(64, 1, 1, 16), (8, 8, 2, 8), (33, 7, 4, 64), (2, 1, 1, 2)] {
        let tile = tile_rows(rows, group, kv_heads, workers);
        assert!((1..=rows).contains(&tile) && kv_heads * rows.div_ceil(tile) >= workers.min(kv_heads * rows));
    }
}
