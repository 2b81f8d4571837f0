//! Normalising and turning the heads of queries and keys, and storing keys and values in the cache.

use bessemer_hal::cpu::{Invocation, Tile};
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling, line};
use bytemuck::{Pod, Zeroable};
use half::f16;

use crate::kv::{KvElement, KvType, STRIP};
use crate::shaders::{by_rows, launch};
use crate::simd::{self, Simd, Task};
use crate::{Catalog, Isa, Kernel, Op, View, bounds, rms_norm};

/// Which columns of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeLayout {
    /// `i` with `i + rot / 2`.
    Halves,
    /// `2 i` with `2 i + 1`; they stay where they are.
    Interleaved,
}

/// Prepares queries, keys and values for attention: optional RMS norm of each head, rotation of its first `rot`
/// columns, keys and values into the cache.
#[derive(Clone, Debug)]
pub struct RopeKv {
    /// `heads * head_dim` columns.
    pub q: View,
    /// `kv_heads * head_dim` columns.
    pub k: View,
    /// `kv_heads * head_dim` columns.
    pub v: View,
    /// f32 `[head_dim]`: weight of the RMS norm of each query head, before it turns.
    pub q_norm: Option<Slice>,
    /// f32 `[head_dim]`: the same for key heads.
    pub k_norm: Option<Slice>,
    /// For both norms.
    pub eps: f32,
    /// f32 `[rows, rot]`: see [`super::RopeTable`].
    pub table: Slice,
    /// u32 `[rows]`: the row of the cache that a row goes to; any number that is no row of the cache, such as
    /// `u32::MAX`: do not store.
    pub slots: Slice,
    /// f32 `[rows, heads * head_dim]`.
    pub q_out: Slice,
    /// `[cache_rows / 16, kv_heads, head_dim, 16]`: keys lie turned, see [`crate::kv`].
    pub key_cache: Slice,
    /// `[cache_rows / 16, kv_heads, 16, head_dim]`.
    pub value_cache: Slice,
    /// Elements of both caches.
    pub kv_type: KvType,
    /// Rows of both caches; a multiple of [`STRIP`].
    pub cache_rows: usize,
    /// Rows.
    pub rows: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Columns of a head; at most 1024.
    pub head_dim: usize,
    /// Columns of a head that turn; even.
    pub rot: usize,
    /// Which of them turn together.
    pub layout: RopeLayout,
}

/// The longest head.
const MAX_HEAD_DIM: usize = 1024;

/// As the CPU kernel has it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RopeParams {
    q_stride: u32,
    q_offset: u32,
    k_stride: u32,
    k_offset: u32,
    v_stride: u32,
    v_offset: u32,
    rows: u32,
    head_dim: u32,
    rot: u32,
    eps: f32,
    interleaved: u32,
    /// Bit 0: there is a q_norm; bit 1: a k_norm.
    norms: u32,
}

static F32: Kernel = Kernel { name: "rope_kv_f32", cpu: kernel::<f32> };
static F16: Kernel = Kernel { name: "rope_kv_f16", cpu: kernel::<f16> };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    q: [u32; 2],
    k: [u32; 2],
    v: [u32; 2],
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    rot: u32,
    cache_rows: u32,
    interleaved: u32,
    norms: u32,
    eps: f32,
}

impl RopeKv {
    pub(crate) fn check(&self) -> Result<()> {
        let Self { rows, heads, kv_heads, head_dim, rot, cache_rows, .. } = *self;
        let op = "rope_kv";
        bounds::rule(op, kv_heads > 0 && heads.is_multiple_of(kv_heads), || {
            format!("heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
        })?;
        bounds::rule(op, (1..=MAX_HEAD_DIM).contains(&head_dim), || {
            format!("head_dim must be from 1 to {MAX_HEAD_DIM}, not {head_dim}")
        })?;
        bounds::rule(op, rot.is_multiple_of(2) && rot <= head_dim, || {
            format!("rot must be even and at most head_dim ({head_dim}), not {rot}")
        })?;
        bounds::strips(op, "cache_rows", cache_rows)?;
        for (name, view, cols) in [
            ("q", &self.q, heads * head_dim),
            ("k", &self.k, kv_heads * head_dim),
            ("v", &self.v, kv_heads * head_dim),
        ] {
            bounds::view(op, name, view, rows, cols)?;
        }
        for (name, norm) in [("q_norm", &self.q_norm), ("k_norm", &self.k_norm)] {
            if let Some(norm) = norm {
                bounds::holds::<f32>(op, name, norm, &[head_dim])?;
            }
        }
        bounds::holds::<f32>(op, "table", &self.table, &[rows, rot])?;
        bounds::holds::<u32>(op, "slots", &self.slots, &[rows])?;
        bounds::holds::<f32>(op, "q_out", &self.q_out, &[rows, heads, head_dim])?;
        let cache_bytes = [cache_rows, kv_heads, head_dim, self.kv_type.size()];
        bounds::holds::<u8>(op, "key_cache", &self.key_cache, &cache_bytes)?;
        bounds::holds::<u8>(op, "value_cache", &self.value_cache, &cache_bytes)
    }

    /// Bit 0: there is a q_norm; bit 1: a k_norm.
    pub(crate) fn norms(&self) -> u32 {
        u32::from(self.q_norm.is_some()) | u32::from(self.k_norm.is_some()) << 1
    }

    /// What is bound for a norm; for one that is absent the table, which is then not read as such.
    pub(crate) fn norm(&self, norm: &Option<Slice>) -> Binding {
        Binding::read(norm.as_ref().unwrap_or(&self.table).clone())
    }

    pub(crate) fn params(&self) -> RopeParams {
        RopeParams {
            q_stride: self.q.stride as u32,
            q_offset: self.q.offset as u32,
            k_stride: self.k.stride as u32,
            k_offset: self.k.offset as u32,
            v_stride: self.v.stride as u32,
            v_offset: self.v.offset as u32,
            rows: self.rows as u32,
            head_dim: self.head_dim as u32,
            rot: self.rot as u32,
            eps: self.eps,
            interleaved: u32::from(self.layout == RopeLayout::Interleaved),
            norms: self.norms(),
        }
    }

    /// What the CPU kernel reads, in its order.
    pub(crate) fn inputs(&self) -> [Binding; 7] {
        [
            Binding::read(self.q.slice.clone()),
            Binding::read(self.k.slice.clone()),
            Binding::read(self.v.slice.clone()),
            self.norm(&self.q_norm),
            self.norm(&self.k_norm),
            Binding::read(self.table.clone()),
            Binding::read(self.slots.clone()),
        ]
    }
}

impl Op for RopeKv {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, heads, kv_heads, head_dim, cache_rows, .. } = *self;
        self.check()?;
        let q_tiling = Tiling::by_cols(rows, heads * head_dim, heads / kv_heads * head_dim);
        let cache = Tiling::by_cols(cache_rows / STRIP, kv_heads * head_dim * STRIP, head_dim * STRIP);
        let mut bindings = self.inputs().to_vec();
        bindings.push(Binding::write(self.q_out.clone(), q_tiling));
        bindings.push(Binding::write(self.key_cache.clone(), cache));
        bindings.push(Binding::write(self.value_cache.clone(), cache));
        Ok(Dispatch {
            pipeline: catalog.pipeline(match self.kv_type {
                KvType::F32 => &F32,
                KvType::F16 => &F16,
            })?,
            bindings,
            params: bytemuck::bytes_of(&self.params()).to_vec(),
            groups: line(kv_heads),
        })
    }

    fn gpu(&self, catalog: &Catalog, _: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        self.check()?;
        let held = super::held::HELD.into_iter().find(|held| self.head_dim <= held * 64);
        let kv = match self.kv_type {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
        };
        let name = format!("rope_kv_{kv}_{}", held.unwrap_or_default());
        let place = |view: &View| [view.stride as u32, view.offset as u32];
        let params = GpuParams {
            q: place(&self.q),
            k: place(&self.k),
            v: place(&self.v),
            rows: self.rows as u32,
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            head_dim: self.head_dim as u32,
            rot: self.rot as u32,
            cache_rows: self.cache_rows as u32,
            interleaved: u32::from(self.layout == RopeLayout::Interleaved),
            norms: self.norms(),
            eps: self.eps,
        };
        let mut bindings = self.inputs().to_vec();
        let outputs = [&self.q_out, &self.key_cache, &self.value_cache];
        bindings.extend(outputs.map(|slice| Binding::write_any(slice.clone())));
        let groups = by_rows(self.heads + 2 * self.kv_heads, self.rows);
        Ok(vec![launch(catalog, &name, bindings, &params, groups)?])
    }
}

fn kernel<E: KvElement>(invocation: &mut Invocation<'_>) {
    let (params, inputs) = (invocation.params(), RopeInputs::take(invocation));
    let (mut q_out, mut keys, mut values) =
        (invocation.output(7), invocation.output(8), invocation.output(9));
    turn::<E>(params, inputs, &mut q_out, &mut keys, &mut values);
}

/// What [`turn`] reads.
#[derive(Clone, Copy)]
pub(crate) struct RopeInputs<'a> {
    f32: [&'a [f32]; 6],
    slots: &'a [u32],
}

impl<'a> RopeInputs<'a> {
    /// The first bindings, which [`RopeKv::inputs`] made.
    pub(crate) fn take(invocation: &Invocation<'a>) -> Self {
        Self { f32: [0, 1, 2, 3, 4, 5].map(|i| invocation.input(i)), slots: invocation.input(6) }
    }
}

/// Turns the query heads of a tile, one key head, and stores that and its value: tiles of one key head's columns.
pub(crate) fn turn<E: KvElement>(
    p: RopeParams,
    RopeInputs { f32: [q, k, v, q_norm, k_norm, table], slots }: RopeInputs<'_>,
    q_out: &mut Tile<'_, f32>,
    keys: &mut Tile<'_, E>,
    values: &mut Tile<'_, E>,
) {
    let (head_dim, isa) = (p.head_dim as usize, Isa::detect());
    let turn = Turn { rot: p.rot as usize, eps: p.eps, layout: layout(p.interleaved) };
    let q_norm = (p.norms & 1 != 0).then(|| &q_norm[..head_dim]);
    let k_norm = (p.norms & 2 != 0).then(|| &k_norm[..head_dim]);
    let mut head = [0.0; MAX_HEAD_DIM];
    let head = &mut head[..head_dim];
    let mut key = [E::zeroed(); MAX_HEAD_DIM];
    let key = &mut key[..head_dim];
    for row in 0..p.rows as usize {
        let table = &table[row * turn.rot..][..turn.rot];
        let from = row * p.q_stride as usize + p.q_offset as usize + q_out.first_col();
        let to = q_out.row_mut(row);
        to.copy_from_slice(&q[from..][..to.len()]);
        for head in to.chunks_exact_mut(head_dim) {
            simd::run(isa, Head { x: head, norm: q_norm, table, turn });
        }
        let slot = slots[row] as usize;
        let (strip, place) = (slot / STRIP, slot % STRIP);
        if strip < keys.rows() {
            let from = row * p.k_stride as usize + p.k_offset as usize + keys.first_col() / STRIP;
            head.copy_from_slice(&k[from..][..head_dim]);
            simd::run(isa, Head { x: head, norm: k_norm, table, turn });
            E::narrow(head, key);
            for (to, x) in keys.row_mut(strip).chunks_exact_mut(STRIP).zip(&*key) {
                to[place] = *x;
            }
            let from = row * p.v_stride as usize + p.v_offset as usize + values.first_col() / STRIP;
            head.copy_from_slice(&v[from..][..head_dim]);
            E::narrow(head, &mut values.row_mut(strip)[place * head_dim..][..head_dim]);
        }
    }
}

fn layout(interleaved: u32) -> RopeLayout {
    if interleaved == 1 { RopeLayout::Interleaved } else { RopeLayout::Halves }
}

#[derive(Clone, Copy)]
struct Turn {
    rot: usize,
    eps: f32,
    layout: RopeLayout,
}

/// Normalises and turns one head where it stands.
struct Head<'a> {
    x: &'a mut [f32],
    norm: Option<&'a [f32]>,
    /// Cosines, then sines.
    table: &'a [f32],
    turn: Turn,
}

impl Task for Head<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if let Some(weight) = self.norm {
            rms_norm::in_place(s, self.x, weight, self.turn.eps);
        }
        let half = self.turn.rot / 2;
        let (cos, sin) = self.table.split_at(half);
        match self.turn.layout {
            RopeLayout::Halves => {
                let (a, b) = self.x[..2 * half].split_at_mut(half);
                let pairs = a.chunks_mut(S::LANES).zip(b.chunks_mut(S::LANES));
                for ((a, b), (cos, sin)) in pairs.zip(cos.chunks(S::LANES).zip(sin.chunks(S::LANES))) {
                    let (va, vb, cos, sin) =
                        (s.load(a, 0.0), s.load(b, 0.0), s.load(cos, 0.0), s.load(sin, 0.0));
                    s.store(a, s.sub(s.mul(va, cos), s.mul(vb, sin)));
                    s.store(b, s.fma(vb, cos, s.mul(va, sin)));
                }
            }
            RopeLayout::Interleaved => {
                for (pair, (cos, sin)) in self.x.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
                    (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RopeScaling, inv_freq, table::fill_row};
    use super::*;
    use crate::golden::{Golden, Random};

    fn rotated(isa: Isa, x: &[f32], norm: Option<&[f32]>, table: &[f32], layout: RopeLayout) -> Vec<f32> {
        let mut x = x.to_vec();
        let turn = Turn { rot: table.len(), eps: 1e-6, layout };
        simd::run(isa, Head { x: &mut x, norm, table, turn });
        x
    }

    #[test]
    fn agrees_with_the_oracle() {
        let golden = Golden::open("rope");
        for case in golden.cases() {
            let key = case["key"].as_str().unwrap();
            let scaling = &case["scaling"];
            let number = |name: &str| scaling[name].as_f64();
            let original = scaling["original_max_position_embeddings"].as_u64().map(|n| n as usize);
            let scaling = match case["rope_type"].as_str().unwrap() {
                "default" => RopeScaling::None,
                "linear" => RopeScaling::Linear { factor: number("factor").unwrap() },
                "llama3" => RopeScaling::Llama3 {
                    factor: number("factor").unwrap(),
                    low_freq_factor: number("low_freq_factor").unwrap(),
                    high_freq_factor: number("high_freq_factor").unwrap(),
                    original_max_position: original.unwrap(),
                },
                "yarn" => RopeScaling::Yarn {
                    factor: number("factor").unwrap(),
                    original_max_position: original,
                    beta_fast: number("beta_fast").unwrap_or(32.0),
                    beta_slow: number("beta_slow").unwrap_or(1.0),
                    attention_factor: None,
                    mscale: None,
                    mscale_all_dim: None,
                    truncate: true,
                },
                other => panic!("{other}"),
            };
            let rot = case["rotated_dims"].as_u64().unwrap() as usize;
            let head_dim = case["head_dim"].as_u64().unwrap() as usize;
            let (freqs, factor) = inv_freq(&scaling, case["theta"].as_f64().unwrap(), rot, 4096);
            if !key.starts_with("partial") {
                for (ours, theirs) in freqs.iter().zip(golden.f32(&format!("{key}.inv_freq"))) {
                    assert!((ours / theirs - 1.0).abs() <= 1e-6, "{key}: {ours} is not {theirs}");
                }
                assert!((f64::from(factor) - case["attention_factor"].as_f64().unwrap()).abs() < 1e-6);
            }
            let interleaved = case["interleaved"] == true;
            let layout = if interleaved { RopeLayout::Interleaved } else { RopeLayout::Halves };
            let positions: Vec<_> =
                case["positions"].as_array().unwrap().iter().map(|p| p.as_u64().unwrap()).collect();
            let x = golden.f32(&format!("{key}.x"));
            let y = golden.f32(&format!("{key}.{}", if interleaved { "y_pairs_in_place" } else { "y" }));
            for isa in Isa::all_available() {
                for (i, (x, y)) in x.chunks(head_dim).zip(y.chunks(head_dim)).enumerate() {
                    let mut table = vec![0.0; rot];
                    fill_row(positions[i % positions.len()] as u32, &freqs, factor, &mut table);
                    let out = rotated(isa, x, None, &table, layout);
                    let worst = out.iter().zip(y).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(
                        f64::from(worst) <= case["max_abs"].as_f64().unwrap(),
                        "{key} {isa:?}: off by {worst}"
                    );
                }
            }
        }
    }

    #[test]
    fn odd_heads_are_normalised_before_they_turn() {
        let mut random = Random(11);
        for (head_dim, rot) in [(8, 8), (24, 10), (40, 40), (96, 64), (128, 128), (18, 0)] {
            let (x, weight) = (random.normal(head_dim), random.normal(head_dim));
            let mut table = vec![0.0; rot];
            let freqs = inv_freq(&RopeScaling::None, 1e4, rot, 4096).0;
            fill_row(1234, &freqs, 1.0, &mut table);
            let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / head_dim as f64;
            let normed: Vec<f64> = x
                .iter()
                .zip(&weight)
                .map(|(&x, &w)| f64::from(x) / (mean + 1e-6).sqrt() * f64::from(w))
                .collect();
            for isa in Isa::all_available() {
                for layout in [RopeLayout::Halves, RopeLayout::Interleaved] {
                    let mut expected = normed.clone();
                    for (i, freq) in freqs.iter().enumerate() {
                        let (a, b) = match layout {
                            RopeLayout::Halves => (i, i + rot / 2),
                            RopeLayout::Interleaved => (2 * i, 2 * i + 1),
                        };
                        let (sin, cos) = f64::from(1234.0 * freq).sin_cos();
                        (expected[a], expected[b]) =
                            (normed[a] * cos - normed[b] * sin, normed[b] * cos + normed[a] * sin);
                    }
                    let out = rotated(isa, &x, Some(&weight), &table, layout);
                    for (out, expected) in out.iter().zip(&expected) {
                        assert!(
                            (f64::from(*out) - expected).abs() < 2e-6,
                            "{isa:?} {head_dim} {rot} {layout:?}"
                        );
                    }
                }
            }
        }
    }
}
