//! Root-mean-square normalisation.

use bessemer_hal::Slice;
use bessemer_kernels::Activations;
use bessemer_kernels::rms_norm::{NormInput, NormOutput, RmsNorm};
use bessemer_runtime::Recorder;

use crate::Result;
use crate::layers::linear::{Input, activations, convert};
use crate::loader::Loader;
use crate::precision::Terms;

/// `x / rms(x) · weight` per row.
pub(crate) struct Norm {
    pub(crate) weight: Slice,
    dim: usize,
    pub(crate) eps: f32,
}

impl Norm {
    pub(crate) fn load(loader: &Loader<'_>, name: &str, dim: usize) -> Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), dim)?;
        Ok(Self { weight, dim, eps: loader.config.norm_eps })
    }

    /// Normalises `x` [rows, dim] into fresh activations of the kind that `input` names.
    pub(crate) fn encode(
        &self,
        recorder: &mut Recorder<'_>,
        x: &Slice,
        rows: usize,
        input: Input,
    ) -> Result<Activations> {
        let out = activations(recorder, rows, self.dim, input)?;
        self.encode_into(recorder, NormInput::Given(x.clone()), rows, out.clone().into())?;
        Ok(out)
    }

    /// Normalises `x` [rows, dim] into fresh f32 rows, and into activations of the kind that `input` names.
    pub(crate) fn encode_with_f32(
        &self,
        recorder: &mut Recorder<'_>,
        x: &Slice,
        rows: usize,
        input: Input,
    ) -> Result<(Slice, Activations)> {
        let f32 = recorder.transient("normed", rows * self.dim * 4)?;
        let plain = Activations::F32(f32.clone());
        let mut out = NormOutput::One(plain.clone());
        let quantised = match input {
            Input::Int8 { terms: Terms::One, .. } => Some(activations(recorder, rows, self.dim, input)?),
            _ => None,
        };
        if let Some(Activations::Int8(int8)) = &quantised {
            out = NormOutput::Both { f32: f32.clone(), int8: int8.clone() };
        }
        self.encode_into(recorder, NormInput::Given(x.clone()), rows, out)?;
        match quantised {
            Some(quantised) => Ok((f32, quantised)),
            None => Ok((f32, convert(recorder, &plain, rows, self.dim, input)?)),
        }
    }

    /// Normalises `x` into `out`.
    pub(crate) fn encode_into(
        &self,
        recorder: &mut Recorder<'_>,
        x: NormInput,
        rows: usize,
        out: NormOutput,
    ) -> Result<()> {
        let (weight, dim, eps) = (self.weight.clone(), self.dim, self.eps);
        Ok(recorder.record(&RmsNorm { x, weight, out, rows, dim, eps })?)
    }
}

/// The norm that a layer's successor begins with, recorded by the layer: it may have work left that fits one launch with
/// it.
pub(crate) struct NextNorm<'a> {
    pub(crate) norm: &'a Norm,
    /// Where the normalised rows go.
    pub(crate) out: Activations,
}

impl NextNorm<'_> {
    pub(crate) fn encode(&self, recorder: &mut Recorder<'_>, x: NormInput, rows: usize) -> Result<()> {
        self.norm.encode_into(recorder, x, rows, self.out.clone().into())
    }
}
