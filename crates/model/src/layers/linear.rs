//! Linear layers: quantisation is their property, not the network's.

use bessemer_hal::Slice;
use bessemer_kernels::linear::{Linear as LinearOp, NormedForm, NormedLinear, Quantise, Write};
use bessemer_kernels::{Activations, QuantisedRows, View};
use bessemer_runtime::Recorder;

use crate::Result;
use crate::layers::norm::Norm;
use crate::loader::{Loader, Matrix};
use crate::precision::{Precision, Terms};

/// The activations that a layer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// f32.
    F32,
    /// int8 with one scale per so many columns.
    Int8 {
        /// Columns that share a scale.
        group: usize,
        /// One row of codes a row, or two for about 15 bits.
        terms: Terms,
    },
}

/// Memory of one step for `rows × dim` activations.
pub(crate) fn activations(
    recorder: &mut Recorder<'_>,
    rows: usize,
    dim: usize,
    input: Input,
) -> Result<Activations> {
    Ok(match input {
        Input::F32 => Activations::F32(recorder.transient("activations", rows * dim * 4)?),
        Input::Int8 { group, terms } => {
            let rows = if terms == Terms::Two { 2 * rows } else { rows };
            let groups = dim.div_ceil(group);
            let quantised = QuantisedRows {
                codes: recorder.transient("activation_codes", rows * dim)?,
                scales: recorder.transient("activation_scales", rows * groups * 4)?,
                sums: recorder.transient("activation_sums", rows * groups * 4)?,
                group,
            };
            match terms {
                Terms::One => Activations::Int8(quantised),
                Terms::Two => Activations::Int8x2(quantised),
            }
        }
    })
}

/// `y = x Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    bias: Option<Slice>,
    input: Input,
}

impl Linear {
    pub(crate) fn load(
        loader: &Loader<'_>,
        prefix: &str,
        out: usize,
        inp: usize,
        bias: bool,
    ) -> Result<Self> {
        let matrix = loader.matrix(prefix, out, inp)?;
        let bias = loader.vector_if(bias, &format!("{prefix}.bias"), out)?;
        Ok(Self::new(matrix, bias, loader.precision()))
    }

    pub(crate) fn new(matrix: Matrix, bias: Option<Slice>, precision: Precision) -> Self {
        let input = input_of(&matrix, precision);
        Self { matrix, bias, input }
    }

    /// The activations that it takes.
    pub(crate) fn input(&self) -> Input {
        self.input
    }

    /// Writes, or adds to, `y` [rows, out].
    pub(crate) fn encode(
        &self,
        recorder: &mut Recorder<'_>,
        x: &Activations,
        rows: usize,
        y: &Slice,
        write: Write,
    ) -> Result<()> {
        recorder.record(&LinearOp {
            x: x.clone(),
            weights: self.matrix.weights(self.bias.clone()),
            out: y.clone(),
            rows,
            write,
        })?;
        Ok(())
    }

    /// Whether it can normalise such rows itself, in the launch of the product.
    pub(crate) fn normalises(&self, recorder: &Recorder<'_>, rows: usize) -> bool {
        let limits = recorder.runtime().catalog().gpu();
        limits.is_some_and(|limits| NormedLinear::takes(&self.matrix.layout, rows, limits))
    }

    /// `y = norm(x) Wᵀ + b` of one row, for a layer that [`Linear::normalises`].
    pub(crate) fn encode_normed(
        &self,
        recorder: &mut Recorder<'_>,
        (norm, x): (&Norm, &Slice),
        form: NormedForm,
        y: &Slice,
    ) -> Result<()> {
        let weights = self.matrix.weights(self.bias.clone());
        let (x, norm, eps) = (x.clone(), norm.weight.clone(), norm.eps);
        Ok(recorder.record(&NormedLinear { x, norm, eps, form, weights, out: y.clone() })?)
    }
}

/// What a matrix takes: f32 unless it is quantised.
pub(crate) fn input_of(matrix: &Matrix, precision: Precision) -> Input {
    match precision {
        Precision::Int8(terms) if matrix.layout.is_quantised() => {
            Input::Int8 { group: matrix.layout.block(), terms }
        }
        _ => Input::F32,
    }
}

/// Fresh activations of the kind that `input` names, written by the gate that `record` records: gates write f32 or one
/// term, and two terms are made from f32.
pub(crate) fn produce(
    recorder: &mut Recorder<'_>,
    rows: usize,
    dim: usize,
    input: Input,
    record: impl FnOnce(&mut Recorder<'_>, Activations) -> Result<()>,
) -> Result<Activations> {
    let direct = match input {
        Input::Int8 { terms: Terms::Two, .. } => Input::F32,
        other => other,
    };
    let out = activations(recorder, rows, dim, direct)?;
    record(recorder, out.clone())?;
    convert(recorder, &out, rows, dim, input)
}

/// Several linear layers over one input (q, k, v; gate, up): one launch where their encodings allow it.
#[derive(Debug)]
pub(crate) enum Fused {
    /// All outputs side by side in one matrix.
    One { linear: Linear, outs: Vec<usize> },
    /// A launch each.
    Each(Vec<(Linear, usize)>),
}

impl Fused {
    /// `parts` are (name under `prefix`, outputs).
    pub(crate) fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parts: &[(&str, usize)],
        inp: usize,
        bias: bool,
    ) -> Result<Self> {
        let names: Vec<(String, usize)> =
            parts.iter().map(|(part, out)| (format!("{prefix}.{part}"), *out)).collect();
        let borrowed: Vec<(&str, usize)> = names.iter().map(|(name, out)| (name.as_str(), *out)).collect();
        if let Some(matrix) = loader.fused(&borrowed, inp)? {
            let bias = match bias {
                true => {
                    let mut values = Vec::new();
                    for (name, out) in &borrowed {
                        values.extend(loader.weights.vector(&format!("{name}.bias"), *out)?);
                    }
                    Some(loader.upload("bias", &values)?)
                }
                false => None,
            };
            let linear = Linear::new(matrix, bias, loader.precision());
            return Ok(Self::One { linear, outs: parts.iter().map(|(_, out)| *out).collect() });
        }
        let each = borrowed
            .iter()
            .map(|(name, out)| Ok((Linear::load(loader, name, *out, inp, bias)?, *out)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self::Each(each))
    }

    /// The activations that it takes: f32 when its parts take different ones, which are then made from it.
    pub(crate) fn input(&self) -> Input {
        match self {
            Self::One { linear, .. } => linear.input(),
            Self::Each(parts) => match parts.first() {
                Some((first, _)) if parts.iter().all(|(l, _)| l.input() == first.input()) => first.input(),
                _ => Input::F32,
            },
        }
    }

    /// Whether it normalises such rows itself, in the launch of the product.
    pub(crate) fn normalises(&self, recorder: &Recorder<'_>, rows: usize) -> bool {
        self.normed(recorder, rows).is_some()
    }

    /// The layer that normalises such rows itself, the outputs in it, and how it multiplies what comes of that.
    fn normed(&self, recorder: &Recorder<'_>, rows: usize) -> Option<(&Linear, &[usize], NormedForm)> {
        let Self::One { linear, outs } = self else { return None };
        let form = match linear.input() {
            Input::Int8 { terms: Terms::One, .. } => NormedForm::Int8,
            Input::Int8 { terms: Terms::Two, .. } => NormedForm::Int8x2,
            Input::F32 => return None,
        };
        linear.normalises(recorder, rows).then_some((linear, outs, form))
    }

    /// Computes all parts of `x` normalised; a view of each, in order.
    pub(crate) fn encode_normed(
        &self,
        recorder: &mut Recorder<'_>,
        norm: &Norm,
        x: &Slice,
        (rows, inp): (usize, usize),
    ) -> Result<Vec<View>> {
        match self.normed(recorder, rows) {
            Some((linear, outs, form)) => {
                let (y, views) = side_by_side(recorder, outs, rows)?;
                linear.encode_normed(recorder, (norm, x), form, &y)?;
                Ok(views)
            }
            None => {
                let normed = norm.encode(recorder, x, rows, self.input())?; // [rows, inp]
                self.encode(recorder, &normed, rows, inp)
            }
        }
    }

    /// Computes all parts; a view of each, in order.
    pub(crate) fn encode(
        &self,
        recorder: &mut Recorder<'_>,
        x: &Activations,
        rows: usize,
        inp: usize,
    ) -> Result<Vec<View>> {
        match self {
            Self::One { linear, outs } => {
                let (y, views) = side_by_side(recorder, outs, rows)?;
                linear.encode(recorder, x, rows, &y, Write::Store)?;
                Ok(views)
            }
            Self::Each(parts) => parts
                .iter()
                .map(|(linear, out)| {
                    let y = recorder.transient("linear", rows * out * 4)?;
                    let own = convert(recorder, x, rows, inp, linear.input())?;
                    linear.encode(recorder, &own, rows, &y, Write::Store)?;
                    Ok(View::dense(y, *out))
                })
                .collect(),
        }
    }
}

/// Memory for outputs side by side, and a view of each.
fn side_by_side(recorder: &mut Recorder<'_>, outs: &[usize], rows: usize) -> Result<(Slice, Vec<View>)> {
    let stride: usize = outs.iter().sum();
    let y = recorder.transient("fused_linear", rows * stride * 4)?;
    let mut offset = 0;
    let view = |out: &usize| {
        offset += out;
        View { slice: y.clone(), stride, offset: offset - out }
    };
    let views = outs.iter().map(view).collect();
    Ok((y, views))
}

/// `x` as `input` wants it: itself, or quantised.
pub(crate) fn convert(
    recorder: &mut Recorder<'_>,
    x: &Activations,
    rows: usize,
    dim: usize,
    input: Input,
) -> Result<Activations> {
    match (x, input) {
        (Activations::F32(slice), Input::Int8 { .. }) => {
            let out = activations(recorder, rows, dim, input)?;
            recorder.record(&Quantise { x: slice.clone(), out: out.clone(), rows, dim })?;
            Ok(out)
        }
        _ => Ok(x.clone()),
    }
}
