//! From a checkpoint's tensors to packed matrices on the device.
//!
//! A matrix is repacked slab by slab: panels of a bounded number of bytes are packed by all threads into one staging
//! buffer and copied to the device, and the file's pages are given back, so that loading needs little memory beside
//! the model itself.

use std::sync::{Mutex, PoisonError};

use bessemer_hal::Slice;
use bessemer_kernels::linear::{
    Encoding, LANES, LinearError, LinearLayout, LinearShape, ScaleType, Source, Weights as PackedWeights,
    pack,
};
use bessemer_runtime::{HeapStack, Runtime};
use bessemer_weights::{DType, Format, LinearWeight, Tensor, Weights};

use crate::options::ActivationMode;
use crate::precision::{Precision, Terms};
use crate::{ModelConfig, ModelError, ModelOptions, Result};

/// Bytes of packed panels in flight.
const SLAB: usize = 32 << 20;

/// What every layer needs to load itself.
pub(crate) struct Loader<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) runtime: &'a Runtime,
    pub(crate) config: &'a ModelConfig,
    pub(crate) options: ModelOptions,
    pub(crate) memory: Mutex<HeapStack>,
}

/// A matrix (or a stack of experts) on the device.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) layout: LinearLayout,
    pub(crate) packed: Slice,
}

impl Matrix {
    /// As the kernels take it.
    pub(crate) fn weights(&self, bias: Option<Slice>) -> PackedWeights {
        PackedWeights { layout: self.layout, packed: self.packed.clone(), bias }
    }
}

impl Loader<'_> {
    /// Activations of the layers that a router may follow. A flipped choice of expert costs far more than a rounded
    /// activation, so where there are experts these have two terms.
    pub(crate) fn precision(&self) -> Precision {
        match self.final_precision() {
            Precision::Int8(_) if self.config.moe.is_some() => Precision::Int8(Terms::Two),
            other => other,
        }
    }

    /// Activations of experts and of the output matrix.
    pub(crate) fn final_precision(&self) -> Precision {
        match self.options.activations {
            ActivationMode::Auto | ActivationMode::Int8 => Precision::Int8(Terms::One),
            ActivationMode::F32 => Precision::F32,
        }
    }

    /// Memory that stays as long as the model.
    fn place(&self, label: &str, bytes: usize) -> Result<Slice> {
        Ok(self.memory.lock().unwrap_or_else(PoisonError::into_inner).push(label, bytes as u64)?.whole())
    }

    /// Values that stay as long as the model.
    pub(crate) fn upload(&self, label: &str, values: &[f32]) -> Result<Slice> {
        let bytes = bytemuck::cast_slice(values);
        let slice = self.place(label, bytes.len())?;
        self.runtime.device().write(&slice, bytes)?;
        Ok(slice)
    }

    /// Bytes placed so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    /// A vector of f32: norm weights, additive biases.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Slice> {
        self.upload(name, &self.weights.vector(name, len)?)
    }

    /// A vector that is there when the configuration says so.
    pub(crate) fn vector_if(&self, wanted: bool, name: &str, len: usize) -> Result<Option<Slice>> {
        wanted.then(|| self.vector(name, len)).transpose()
    }

    /// The matrices of `prefixes` with their outputs one after the other. `None` when their encodings differ or a
    /// boundary between them falls inside a panel: then they cannot share a launch.
    pub(crate) fn fused(&self, prefixes: &[(&str, usize)], inp: usize) -> Result<Option<Matrix>> {
        let weights = prefixes
            .iter()
            .map(|(prefix, out)| Ok(self.weights.linear(prefix, *out, inp)?))
            .collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = prefixes.iter().map(|(prefix, _)| *prefix).collect();
        self.pack_all(&names, &weights, prefixes.iter().map(|(_, out)| *out), inp, 1)
    }

    /// As [`Loader::fused`] for stacks: expert `e` has the outputs of all its matrices one after the other.
    pub(crate) fn fused_experts(
        &self,
        prefixes: &[(&str, usize)],
        inp: usize,
        experts: usize,
    ) -> Result<Option<Matrix>> {
        let weights = prefixes
            .iter()
            .map(|(prefix, out)| Ok(self.weights.experts(prefix, experts, *out, inp)?))
            .collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = prefixes.iter().map(|(prefix, _)| *prefix).collect();
        self.pack_all(&names, &weights, prefixes.iter().map(|(_, out)| *out), inp, experts)
    }

    /// One matrix.
    pub(crate) fn matrix(&self, prefix: &str, out: usize, inp: usize) -> Result<Matrix> {
        self.fused(&[(prefix, out)], inp)?.ok_or_else(|| refused(prefix, "one matrix fits one launch"))
    }

    /// One stack of experts.
    pub(crate) fn expert_matrix(
        &self,
        prefix: &str,
        out: usize,
        inp: usize,
        experts: usize,
    ) -> Result<Matrix> {
        self.fused_experts(&[(prefix, out)], inp, experts)?
            .ok_or_else(|| refused(prefix, "one matrix fits one launch"))
    }

    fn pack_all(
        &self,
        names: &[&str],
        weights: &[LinearWeight<'_>],
        outs: impl Iterator<Item = usize>,
        inp: usize,
        experts: usize,
    ) -> Result<Option<Matrix>> {
        let outs: Vec<usize> = outs.collect();
        let sources: Vec<Source<'_>> = weights.iter().map(source).collect();
        let layouts = weights
            .iter()
            .zip(&sources)
            .zip(&outs)
            .zip(names)
            .map(|(((weight, source), out), name)| {
                layout(weight, source, LinearShape { experts, out: *out, inp }).map_err(|e| refused(name, e))
            })
            .collect::<Result<Vec<_>>>()?;
        let Some(first) = layouts.first() else { return Ok(None) };
        let alike = layouts.iter().all(|l| {
            (l.encoding(), l.group(), l.scale_type()) == (first.encoding(), first.group(), first.scale_type())
        });
        let boundaries_fit = outs.iter().rev().skip(1).all(|out| out.is_multiple_of(LANES));
        if !alike || !boundaries_fit {
            return Ok(None);
        }
        let shape = LinearShape { experts, out: outs.iter().sum(), inp };
        let label = names.join("+");
        let whole = LinearLayout::new(first.encoding(), shape, first.group(), first.scale_type())
            .map_err(|e| refused(&label, e))?;
        let packed = self.place(&label, whole.bytes())?;
        // Expert by expert, part by part: each is a run of whole panels, and so is their concatenation.
        let mut offset = 0;
        for expert in 0..experts {
            for (layout, source) in layouts.iter().zip(&sources) {
                offset += self.pack_run(layout, source, expert, &packed, offset)?;
            }
        }
        names.iter().for_each(|name| self.weights.release(name));
        Ok(Some(Matrix { layout: whole, packed }))
    }

    /// Packs the panels of one expert of one matrix to `offset`; returns their bytes.
    fn pack_run(
        &self,
        layout: &LinearLayout,
        source: &Source<'_>,
        expert: usize,
        packed: &Slice,
        offset: usize,
    ) -> Result<usize> {
        let panel_bytes = layout.panel_bytes();
        let panels = expert * layout.panels()..(expert + 1) * layout.panels();
        let slab_panels = (SLAB / panel_bytes.max(1)).max(1);
        let threads = self.runtime.catalog().workers();
        let mut staging = vec![0u8; slab_panels.min(panels.len()) * panel_bytes];
        let mut at = offset;
        for first in panels.clone().step_by(slab_panels) {
            let slab = first..(first + slab_panels).min(panels.end);
            let bytes = &mut staging[..slab.len() * panel_bytes];
            pack_parallel(layout, source, slab, bytes, threads)
                .map_err(|e| refused(packed.buffer().label(), e))?;
            self.runtime.device().write(&packed.slice(at as u64, bytes.len() as u64)?, bytes)?;
            at += bytes.len();
        }
        Ok(at - offset)
    }
}

/// Packs a slab by as many threads as it has work for.
fn pack_parallel(
    layout: &LinearLayout,
    source: &Source<'_>,
    slab: std::ops::Range<usize>,
    bytes: &mut [u8],
    threads: usize,
) -> Result<(), LinearError> {
    const WORTH_A_THREAD: usize = 256 << 10;
    let share = slab.len().div_ceil(threads.min(bytes.len().div_ceil(WORTH_A_THREAD)).max(1)).max(1);
    if share >= slab.len() {
        return pack(layout, source, slab, bytes);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = slab
            .clone()
            .step_by(share)
            .zip(bytes.chunks_mut(share * layout.panel_bytes()))
            .map(|(first, bytes)| {
                let panels = first..(first + share).min(slab.end);
                scope.spawn(move || pack(layout, source, panels, bytes))
            })
            .collect();
        workers.into_iter().try_for_each(|w| match w.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn source<'s>(weight: &'s LinearWeight<'_>) -> Source<'s> {
    match weight {
        LinearWeight::Plain(tensor) => Source { weights: &tensor.bytes, scales: None, biases: None },
        LinearWeight::Quantised { format, codes, scales, biases, .. } => Source {
            weights: &codes.bytes,
            scales: Some((scale_type(*format, scales), &scales.bytes)),
            biases: biases.as_ref().map(|b| &*b.bytes),
        },
    }
}

fn scale_type(format: Format, scales: &Tensor<'_>) -> ScaleType {
    match (format, scales.dtype) {
        (Format::Mxfp4, _) => ScaleType::E8m0,
        (_, DType::F16) => ScaleType::F16,
        (_, DType::BF16) => ScaleType::Bf16,
        _ => ScaleType::F32,
    }
}

fn layout(
    weight: &LinearWeight<'_>,
    source: &Source<'_>,
    shape: LinearShape,
) -> Result<LinearLayout, LinearError> {
    match weight {
        LinearWeight::Plain(tensor) => {
            let encoding = match tensor.dtype {
                DType::F16 => Encoding::F16,
                DType::BF16 => Encoding::Bf16,
                _ => Encoding::F32,
            };
            LinearLayout::plain(encoding, shape)
        }
        LinearWeight::Quantised { format: Format::Affine { bits, group }, .. } => {
            LinearLayout::new(Encoding::Affine { bits: *bits }, shape, *group, source.scale_type())
        }
        LinearWeight::Quantised { format: Format::Mxfp4, .. } => {
            LinearLayout::new(Encoding::Mxfp4, shape, 32, ScaleType::E8m0)
        }
    }
}

fn refused(name: &str, error: impl std::fmt::Display) -> ModelError {
    ModelError::Matrix { name: name.into(), reason: error.to_string() }
}
