//! Attention over a paged cache: every kernel of it, over caches in which only what a row may see is a number.

pub(super) mod turned;

use bessemer_kernels::attention::Attention;
use bessemer_kernels::kv::STRIP;
use bessemer_kernels::{Activations, KvType};
use half::f16;
use rand::{Rng, rngs::SmallRng};

use super::int8::Codes;
use crate::{Both, Check, Failure, Outcome, Side, Tolerance, Twin, compare, data, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "a_row_for_each_sequence", run: a_row_for_each_sequence },
    Check { name: "many_rows_of_one_sequence", run: many_rows_of_one_sequence },
    Check { name: "rows_and_chunks_together", run: rows_and_chunks_together },
    Check { name: "heads_of_any_width", run: heads_of_any_width },
    Check { name: "blocks_outside_the_cache", run: blocks_outside_the_cache },
    Check { name: "rows_as_int8", run: rows_as_int8 },
    Check { name: "nothing_beside_a_row_changes_its_bits", run: nothing_beside_a_row_changes_its_bits },
];

/// Outputs are averages of numbers in −1 to 1; devices differ in the order of sums and in the last bit of `exp2`.
const TOLERANCE: Tolerance = Tolerance::new(2e-5, 1e-5);

/// With cooperative matrices, queries and weights are half floats: 11 bits, of which errors average out.
const HALVES: Tolerance = Tolerance::new(1e-3, 1e-3);

/// Some rows of one sequence: the first stands at `position`.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    position: usize,
    rows: usize,
}

#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    kv_type: KvType,
    block_size: usize,
    blocks_per_seq: usize,
    window: Option<usize>,
    cache_rows: usize,
    tables: Vec<u32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// The chunk of each sequence, in the order of `tables`.
    chunks: Vec<Chunk>,
    /// `[rows, heads, head_dim]`.
    q: Vec<f32>,
}

impl Case {
    fn new(
        rng: &mut SmallRng,
        (heads, kv_heads, head_dim): (usize, usize, usize),
        window: Option<usize>,
        chunks: Vec<Chunk>,
    ) -> Self {
        let block_size = data::one_of(rng, &[16, 32, 48]);
        let longest = chunks.iter().map(|c| c.position + c.rows).max().unwrap_or(0);
        let blocks_per_seq = longest.div_ceil(block_size) + rng.random_range(0..3);
        let blocks = blocks_per_seq * chunks.len();
        let cache_rows = blocks * block_size;
        let elements = cache_rows * kv_heads * head_dim;
        let rows: usize = chunks.iter().map(|c| c.rows).sum();
        let mut case = Self {
            heads,
            kv_heads,
            head_dim,
            kv_type: data::one_of(rng, &[KvType::F16, KvType::F32]),
            block_size,
            blocks_per_seq,
            window,
            cache_rows,
            tables: data::permutation(rng, blocks),
            keys: vec![f32::NAN; elements],
            values: vec![f32::NAN; elements],
            q: data::floats(rng, rows * heads * head_dim).iter().map(|x| 4.0 * x).collect(),
            chunks,
        };
        for seq in 0..case.chunks.len() {
            let chunk = case.chunks[seq];
            let first = (chunk.position + 1).saturating_sub(window.unwrap_or(usize::MAX));
            for position in first..chunk.position + chunk.rows {
                case.fill(rng, seq, position);
            }
        }
        case
    }

    /// Gives a position its keys and values.
    fn fill(&mut self, rng: &mut SmallRng, seq: usize, position: usize) {
        self.put(seq, position, || rng.random_range(-1.0..=1.0));
    }

    /// Takes them away.
    fn blank(&mut self, seq: usize, position: usize) {
        self.put(seq, position, || f32::NAN);
    }

    fn put(&mut self, seq: usize, position: usize, mut next: impl FnMut() -> f32) {
        let block = self.tables[seq * self.blocks_per_seq + position / self.block_size] as usize;
        let row = block * self.block_size + position % self.block_size;
        for head in 0..self.kv_heads {
            let begin = (row / STRIP * self.kv_heads + head) * STRIP * self.head_dim;
            for d in 0..self.head_dim {
                self.keys[begin + d * STRIP + row % STRIP] = next();
                self.values[begin + row % STRIP * self.head_dim + d] = next();
            }
        }
    }

    /// Only some of the sequences, with the same cache.
    fn only(&self, wanted: impl Fn(usize) -> bool) -> Self {
        let width = self.heads * self.head_dim;
        let mut some = Self { tables: vec![], chunks: vec![], q: vec![], ..self.clone() };
        let mut row = 0;
        for (seq, chunk) in self.chunks.iter().enumerate() {
            if wanted(seq) {
                some.tables.extend(&self.tables[seq * self.blocks_per_seq..][..self.blocks_per_seq]);
                some.chunks.push(*chunk);
                some.q.extend(&self.q[row * width..][..chunk.rows * width]);
            }
            row += chunk.rows;
        }
        some
    }

    fn cache(&self, twin: &Twin, from: &[f32]) -> Result<Both, Failure> {
        Ok(match self.kv_type {
            KvType::F32 => twin.put(from)?,
            KvType::F16 => {
                twin.put(&from.iter().map(|x| f16::from_f32(*x).to_bits()).collect::<Vec<u16>>())?
            }
        })
    }

    /// What both devices compute.
    fn run(&self, twin: &Twin) -> Result<(Vec<f32>, Vec<f32>), Failure> {
        let out = twin.rubbish::<f32>(self.q.len())?;
        self.run_into(twin, |side| Activations::F32(out.on(side)))?;
        Ok((twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?))
    }

    fn run_into(&self, twin: &Twin, out: impl Fn(Side) -> Activations) -> Outcome {
        let each = |f: fn(usize, Chunk, usize) -> usize| -> Vec<u32> {
            let rows = self.chunks.iter().enumerate();
            rows.flat_map(|(seq, &chunk)| (0..chunk.rows).map(move |row| f(seq, chunk, row) as u32)).collect()
        };
        let row_seq = twin.put(&each(|seq, _, _| seq))?;
        let positions = twin.put(&each(|_, chunk, row| chunk.position + row))?;
        let (tables, q) = (twin.put(&self.tables)?, twin.put(&self.q)?);
        let (keys, values) = (self.cache(twin, &self.keys)?, self.cache(twin, &self.values)?);
        twin.run(|side| Attention {
            q: q.on(side),
            key_cache: keys.on(side),
            value_cache: values.on(side),
            kv_type: self.kv_type,
            cache_rows: self.cache_rows,
            block_size: self.block_size,
            out: out(side),
            row_seq: row_seq.on(side),
            positions: positions.on(side),
            block_tables: tables.on(side),
            blocks_per_seq: self.blocks_per_seq,
            rows: self.chunks.iter().map(|c| c.rows).sum(),
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).powf(-0.5),
            window: self.window,
        })
        .map_err(|error| Failure::from(error).within(&self.name()))
    }

    /// Each device's int8 rows against its own f32 rows: half a step apart at most.
    fn check_int8(&self, twin: &Twin, group: usize) -> Outcome {
        let (width, rows) = (self.heads * self.head_dim, self.q.len() / (self.heads * self.head_dim));
        let (cpu, device) = self.run(twin)?;
        for terms in [1, 2] {
            let out = Codes::new(twin, terms * rows, width, group)?;
            self.run_into(twin, |side| match terms {
                1 => Activations::Int8(out.on(side)),
                _ => Activations::Int8x2(out.on(side)),
            })?;
            for (side, x) in [(Side::Cpu, &cpu), (Side::Device, &device)] {
                let what = format!("{terms} terms in groups of {group}, {side:?}, {}", self.name());
                let written = out.get(twin, side)?;
                written.sums_are_right(&what)?;
                let errors = written.errors(x, width, terms);
                compare(&what, &vec![0.0; errors.len()], &errors, Tolerance::new(0.52, 0.0))?;
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!(
            "{} heads of {} over {}, {:?}, blocks {}×{}, window {:?}, chunks {:?}",
            self.heads,
            self.head_dim,
            self.kv_heads,
            self.kv_type,
            self.blocks_per_seq,
            self.block_size,
            self.window,
            self.chunks.iter().map(|c| (c.position, c.rows)).collect::<Vec<_>>()
        )
    }

    fn check(&self, twin: &Twin) -> Outcome {
        let (want, got) = self.run(twin)?;
        let halves = twin.gpu().is_some_and(|gpu| gpu.cooperative_matrix) && self.kv_type == KvType::F16;
        compare(&self.name(), &want, &got, if halves { HALVES } else { TOLERANCE })
    }
}

/// Query heads and key heads as models have them.
fn heads(rng: &mut SmallRng) -> (usize, usize) {
    let kv_heads = rng.random_range(1..=3);
    (kv_heads * data::one_of(rng, &[1, 2, 3, 4, 5, 7, 8, 12]), kv_heads)
}

fn window(rng: &mut SmallRng) -> Option<usize> {
    data::one_of(rng, &[None, None, Some(1), Some(40), Some(130), Some(300), Some(5000)])
}

fn a_row_for_each_sequence(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (heads, kv_heads) = heads(rng);
    let head_dim = data::one_of(rng, &[64, 128]);
    let window = window(rng);
    let chunks = (0..rng.random_range(1..=4)).map(|_| Chunk { position: rng.random_range(0..700), rows: 1 });
    let chunks = chunks.collect();
    Case::new(rng, (heads, kv_heads, head_dim), window, chunks).check(twin)
}

fn many_rows_of_one_sequence(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (heads, kv_heads) = heads(rng);
    let head_dim = data::one_of(rng, &[64, 128]);
    let window = window(rng);
    let chunk = Chunk { position: rng.random_range(0..200), rows: rng.random_range(2..150) };
    Case::new(rng, (heads, kv_heads, head_dim), window, vec![chunk]).check(twin)
}

/// Sequences of which some have one row, some a chunk.
fn batch(rng: &mut SmallRng) -> Vec<Chunk> {
    let mut chunks = vec![Chunk { position: rng.random_range(0..100), rows: rng.random_range(20..70) }];
    for _ in 0..rng.random_range(1..6) {
        let rows = data::one_of(rng, &[1, 1, 2, 9, 33]);
        let position = rng.random_range(0..400);
        let at = rng.random_range(0..=chunks.len());
        chunks.insert(at, Chunk { position, rows });
    }
    chunks
}

fn rows_and_chunks_together(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (heads, kv_heads) = heads(rng);
    let head_dim = data::one_of(rng, &[64, 128]);
    let (window, chunks) = (window(rng), batch(rng));
    Case::new(rng, (heads, kv_heads, head_dim), window, chunks).check(twin)
}

fn heads_of_any_width(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for head_dim in [data::one_of(rng, &[8, 24, 40, 80, 96, 160, 256, 320]), rng.random_range(1..150)] {
        let (heads, kv_heads) = heads(rng);
        let rows = data::one_of(rng, &[1, 3, 17, 40]);
        let chunk = Chunk { position: rng.random_range(0..200), rows };
        let window = window(rng);
        Case::new(rng, (heads, kv_heads, head_dim), window, vec![chunk]).check(twin)?;
    }
    Ok(())
}

fn blocks_outside_the_cache(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (heads, kv_heads) = heads(rng);
    let (window, mut chunks) = (window(rng), batch(rng));
    chunks.truncate(rng.random_range(1..=chunks.len()));
    let mut case = Case::new(rng, (heads, kv_heads, 64), window, chunks);
    for id in &mut case.tables {
        if rng.random_range(0..4) == 0 {
            *id = data::one_of(rng, &[u32::MAX, u32::MAX / 16, (case.cache_rows / case.block_size) as u32]);
        }
    }
    case.check(twin)
}

/// Rows that are quantised where they are finished: with one split, with several, and behind tiles.
fn rows_as_int8(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for longest in [100, 700] {
        let group = data::one_of(rng, &[32, 64]);
        let head_dim = data::one_of(rng, &[64, 128, 64, 128, 192, 256]);
        let chunk = |rng: &mut SmallRng| Chunk { position: rng.random_range(0..longest), rows: 1 };
        let chunks = (0..rng.random_range(1..=4)).map(|_| chunk(rng)).collect();
        let (heads, kv_heads) = heads(rng);
        let window = window(rng);
        Case::new(rng, (heads, kv_heads, head_dim), window, chunks).check_int8(twin, group)?;
    }
    let (heads, kv_heads) = heads(rng);
    let (window, chunks, head_dim) = (window(rng), batch(rng), data::one_of(rng, &[64, 128]));
    Case::new(rng, (heads, kv_heads, head_dim), window, chunks).check_int8(twin, 64)
}

/// The rows of a sequence have the same bits alone and in a crowd, as long as the same kernel is theirs.
fn nothing_beside_a_row_changes_its_bits(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (heads, kv_heads) = heads(rng);
    let (window, chunks) = (window(rng), batch(rng));
    let case = Case::new(rng, (heads, kv_heads, 128), window, chunks);
    let (_, whole) = case.run(twin)?;
    let mut row = 0;
    for (seq, chunk) in case.chunks.iter().enumerate() {
        // A row alone is always split; a chunk is tiled when it has more than a few rows, and the crowd has.
        if chunk.rows == 1 || chunk.rows > 16 {
            let (_, alone) = case.only(|other| other == seq).run(twin)?;
            let width = heads * case.head_dim;
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let in_the_crowd = &whole[row * width..][..chunk.rows * width];
            equal(&format!("sequence {seq} of {}", case.name()), &bits(&alone), &bits(in_the_crowd))?;
        }
        row += chunk.rows;
    }
    Ok(())
}
