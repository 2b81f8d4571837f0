//! Random matrices and activations of every kind, on both devices.

use bessemer_kernels::linear::{
    Encoding, Int8RowMut, LinearLayout, LinearShape, ScaleType, Source, Weights, pack, quantise_row,
    unpack_row,
};
use bessemer_kernels::{Activations, Isa, QuantisedRows};
use half::{bf16, f16};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::data::{bytes, floats, one_of};
use crate::{Both, Failure, Side, Twin};

/// Every encoding.
pub(super) const ENCODINGS: [Encoding; 10] = [
    Encoding::F32,
    Encoding::F16,
    Encoding::Bf16,
    Encoding::Affine { bits: 2 },
    Encoding::Affine { bits: 3 },
    Encoding::Affine { bits: 4 },
    Encoding::Affine { bits: 5 },
    Encoding::Affine { bits: 6 },
    Encoding::Affine { bits: 8 },
    Encoding::Mxfp4,
];

/// Those with codes.
pub(super) fn quantised() -> impl Iterator<Item = Encoding> {
    ENCODINGS
        .into_iter()
        .filter(|encoding| !matches!(encoding, Encoding::F32 | Encoding::F16 | Encoding::Bf16))
}

/// A packed matrix, or a stack of them.
pub(super) struct Sample {
    pub(super) layout: LinearLayout,
    packed: Both,
    bias: Option<Both>,
    /// `[experts * out][inp]`: what it means.
    weights: Vec<f32>,
    bias_values: Vec<f32>,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::wrong(error.to_string())
}

/// `count` small numbers of a type, as bytes.
fn values(rng: &mut SmallRng, count: usize, kind: ScaleType) -> Vec<u8> {
    let values = floats(rng, count).into_iter().map(|v| v * 0.1);
    match kind {
        ScaleType::F32 => values.flat_map(f32::to_le_bytes).collect(),
        ScaleType::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
        ScaleType::Bf16 => values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
        ScaleType::E8m0 => (0..count).map(|_| rng.random_range(118..=130)).collect(),
    }
}

impl Sample {
    /// A matrix with groups and scale type drawn. `steps` are its inputs in units of what they must be a multiple of.
    pub(super) fn draw(
        twin: &Twin,
        rng: &mut SmallRng,
        encoding: Encoding,
        (experts, out, steps): (usize, usize, usize),
    ) -> Result<Self, Failure> {
        let group = one_of(rng, &[32, 64, 128]);
        let scale_type = one_of(rng, &[ScaleType::F32, ScaleType::F16, ScaleType::Bf16]);
        let unit = match encoding {
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 => 1,
            Encoding::Affine { .. } => group,
            Encoding::Mxfp4 => 32,
        };
        let shape = LinearShape { experts, out, inp: steps * unit };
        let layout = LinearLayout::new(encoding, shape, group, scale_type).map_err(failed)?;
        let count = experts * out * shape.inp;
        let weights = match encoding {
            Encoding::F32 => values(rng, count, ScaleType::F32),
            Encoding::F16 => values(rng, count, ScaleType::F16),
            Encoding::Bf16 => values(rng, count, ScaleType::Bf16),
            _ => bytes(rng, count * layout.bits() / 8),
        };
        let scales = layout.is_quantised().then(|| values(rng, count / layout.group(), layout.scale_type()));
        let biases = matches!(encoding, Encoding::Affine { .. })
            .then(|| values(rng, count / layout.group(), layout.scale_type()));
        let source = Source {
            weights: &weights,
            scales: scales.as_ref().map(|scales| (layout.scale_type(), scales.as_slice())),
            biases: biases.as_deref(),
        };
        let mut packed = vec![0; layout.bytes()];
        pack(&layout, &source, 0..experts * layout.panels(), &mut packed).map_err(failed)?;
        let mut weights = vec![0.0; count];
        for (row, values) in weights.chunks_exact_mut(shape.inp).enumerate() {
            unpack_row(&layout, &packed, row, values).map_err(failed)?;
        }
        let bias_values = if rng.random() { floats(rng, experts * out) } else { vec![] };
        let bias = if bias_values.is_empty() { None } else { Some(twin.put(&bias_values)?) };
        Ok(Self { layout, packed: twin.put(&packed)?, bias, weights, bias_values })
    }

    /// The same without scales of 32 bits, which launches that join several operations do not take.
    pub(super) fn draw_narrow(
        twin: &Twin,
        rng: &mut SmallRng,
        encoding: Encoding,
        shape: (usize, usize, usize),
    ) -> Result<Self, Failure> {
        loop {
            let sample = Self::draw(twin, rng, encoding, shape)?;
            if sample.layout.scale_type() != ScaleType::F32 {
                return Ok(sample);
            }
        }
    }

    pub(super) fn on(&self, side: Side) -> Weights {
        Weights {
            layout: self.layout,
            packed: self.packed.on(side),
            bias: self.bias.as_ref().map(|bias| bias.on(side)),
        }
    }

    /// The magnitudes of all terms of `x · W[expert]ᵀ + bias`, added up: what rounding errors are measured by.
    pub(super) fn magnitudes(&self, expert: usize, x: &[f32]) -> Vec<f32> {
        let (out, inp) = (self.layout.out(), self.layout.inp());
        (0..out)
            .map(|o| {
                let row = expert * out + o;
                let weights = &self.weights[row * inp..(row + 1) * inp];
                let bias = self.bias_values.get(row).map_or(0.0, |b| b.abs());
                weights.iter().zip(x).map(|(w, x)| (w * x).abs()).sum::<f32>() + bias
            })
            .collect()
    }

    /// Shape and encoding, for messages.
    pub(super) fn describe(&self) -> String {
        let layout = &self.layout;
        let bias = if self.bias.is_some() { " with bias" } else { "" };
        format!(
            "{:?} group {} {:?} {}×{}×{}{bias}",
            layout.encoding(),
            layout.group(),
            layout.scale_type(),
            layout.experts(),
            layout.out(),
            layout.inp()
        )
    }
}

/// The forms that activations come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F32,
    Int8,
    Int8x2,
}

impl Form {
    /// Those that a layout takes.
    pub(super) fn of(layout: &LinearLayout) -> &'static [Self] {
        if layout.is_quantised() { &[Self::F32, Self::Int8, Self::Int8x2] } else { &[Self::F32] }
    }
}

/// Rows of activations in one form.
pub(super) enum Rows {
    F32(Both),
    Int8 { two: bool, codes: Both, scales: Both, sums: Both, group: usize },
}

impl Rows {
    /// `x`, rows of `inp` values, for a layout.
    pub(super) fn new(twin: &Twin, x: &[f32], layout: &LinearLayout, form: Form) -> Result<Self, Failure> {
        if form == Form::F32 {
            return Ok(Self::F32(twin.put(x)?));
        }
        let (inp, group) = (layout.inp(), layout.block());
        let (mut codes, mut scales, mut sums) = (vec![], vec![], vec![]);
        let mut push = |row: &[f32]| {
            let from = (codes.len(), scales.len());
            codes.resize(from.0 + inp, 0_i8);
            scales.resize(from.1 + inp / group, 0.0_f32);
            sums.resize(from.1 + inp / group, 0_i32);
            let to = Int8RowMut {
                codes: &mut codes[from.0..],
                scales: &mut scales[from.1..],
                sums: &mut sums[from.1..],
            };
            quantise_row(Isa::detect(), row, group, to).map_err(failed)?;
            let left = (0..inp).map(|k| row[k] - scales[from.1 + k / group] * f32::from(codes[from.0 + k]));
            Ok::<Vec<f32>, Failure>(left.collect())
        };
        for row in x.chunks_exact(inp) {
            let left = push(row)?;
            if form == Form::Int8x2 {
                push(&left)?;
            }
        }
        let two = form == Form::Int8x2;
        Ok(Self::Int8 {
            two,
            codes: twin.put(&codes)?,
            scales: twin.put(&scales)?,
            sums: twin.put(&sums)?,
            group,
        })
    }

    pub(super) fn on(&self, side: Side) -> Activations {
        match self {
            Self::F32(x) => Activations::F32(x.on(side)),
            Self::Int8 { two, codes, scales, sums, group } => {
                let rows = QuantisedRows {
                    codes: codes.on(side),
                    scales: scales.on(side),
                    sums: sums.on(side),
                    group: *group,
                };
                if *two { Activations::Int8x2(rows) } else { Activations::Int8(rows) }
            }
        }
    }
}
