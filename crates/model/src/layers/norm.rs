//! Root-mean-square normalisation.

use bessemer_hal::Slice;
use bessemer_kernels::Activations;
use bessemer_kernels::rms_norm::RmsNorm;
use bessemer_runtime::Recorder;

use crate::Result;
use crate::layers::linear::{Input, produce};
use crate::loader::Loader;

/// `x / rms(x) · weight` per row.
pub(crate) struct Norm {
    weight: Slice,
    dim: usize,
    eps: f32,
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
        produce(recorder, rows, self.dim, input, |recorder, out| {
            let (x, weight) = (x.clone(), self.weight.clone());
            Ok(recorder.record(&RmsNorm { x, weight, out, rows, dim: self.dim, eps: self.eps })?)
        })
    }
}
