//! Models made up on the spot: the shape of a published model, random weights, no download.
//!
//! - `synth:SHAPE[:FORMAT]`, FORMAT one of `4` (bits, group 64), `4g32`, `mxfp4`, `bf16`, `f16`, `f32`; default `4`.
//! - **As an MLX conversion**: names, config.json, packing and the 8-bit router are those of `mlx_lm.convert`, so that
//!   the normal loader, and nothing else, reads it.
//! - **Lazy and reproducible**: a tensor's bytes depend on seed and name only and are made when read; nothing is kept.
//! - **Tame**: weights have mean 0 and variance 1/in, norms are 1, so activations keep their size through any depth.

use std::collections::BTreeMap;
use std::sync::Arc;

use half::{bf16, f16};
use serde_json::{Value, json};

use crate::fill::Stream;
use crate::shapes::{Part, SHAPES, Shape};
use crate::{DType, Format, ModelFiles, Result, Tensor, TensorInfo, TensorSource, WeightsError, embedded};

/// A shape that `synth:` knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthShape {
    /// What to type after `synth:`.
    pub name: &'static str,
    /// Parameters, all experts counted.
    pub parameters: u64,
}

/// The shapes that `synth:` knows.
pub fn synth_shapes() -> Vec<SynthShape> {
    SHAPES
        .iter()
        .map(|shape| SynthShape {
            name: shape.name,
            parameters: shape.parts().iter().map(Part::parameters).sum(),
        })
        .collect()
}

/// Opens what follows `synth:`.
pub(crate) fn open(synthetic: &str, seed: u64) -> Result<ModelFiles> {
    let name = format!("synth:{synthetic}");
    let (shape, format) = synthetic.split_once(':').unwrap_or((synthetic, "4"));
    let Some(shape) = Shape::find(shape) else {
        let known = SHAPES.map(|shape| shape.name).join(", ");
        return Err(WeightsError::Name {
            name,
            rule: format!("there is no shape {shape:?}"),
            cure: format!("Known shapes: {known}"),
        });
    };
    let Some(storage) = Storage::parse(format) else {
        return Err(WeightsError::Name {
            name,
            rule: format!("{format:?} is not a format"),
            cure: "Give 2, 3, 4, 5, 6 or 8 (bits), with a group as in 4g32 (32, 64, 128), or mxfp4, bf16, f16, f32"
                .into(),
        });
    };
    let mut config = shape.config();
    if let (Storage::Packed(format), Value::Object(config)) = (storage, &mut config) {
        let quantisation = quantisation(format, shape);
        config.insert("quantization".into(), quantisation.clone());
        config.insert("quantization_config".into(), quantisation);
    }
    let tensors = SynthSource::new(name.clone(), shape, storage, seed);
    Ok(ModelFiles {
        name,
        config,
        generation_config: None,
        tokenizer_json: Some(embedded::STORYTELLER.tokenizer()),
        tokenizer_config: Some(embedded::STORYTELLER.tokenizer_config()?),
        chat_template: Some(embedded::STORYTELLER.chat_template().into()),
        bytes_on_disk: tensors.bytes(),
        tensors: Arc::new(tensors),
    })
}

/// How matrices are stored.
#[derive(Debug, Clone, Copy)]
enum Storage {
    Plain(DType),
    Packed(Format),
}

impl Storage {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "bf16" => Self::Plain(DType::BF16),
            "f16" => Self::Plain(DType::F16),
            "f32" => Self::Plain(DType::F32),
            "mxfp4" => Self::Packed(Format::Mxfp4),
            affine => {
                let (bits, group) = affine.split_once('g').unwrap_or((affine, "64"));
                let bits = ["2", "3", "4", "5", "6", "8"].contains(&bits).then(|| bits.parse().ok())??;
                let group = ["32", "64", "128"].contains(&group).then(|| group.parse().ok())??;
                Self::Packed(Format::Affine { bits, group })
            }
        })
    }

    /// mlx-lm keeps routers at 8 bits, affine, whatever the rest is.
    fn of_layer(self, prefix: &str) -> Self {
        match self {
            Self::Packed(_) if Shape::is_router(prefix) => Self::Packed(ROUTER),
            other => other,
        }
    }
}

const ROUTER: Format = Format::Affine { bits: 8, group: 64 };

fn quantisation(format: Format, shape: &Shape) -> Value {
    let mode = match format {
        Format::Affine { .. } => "affine",
        Format::Mxfp4 => "mxfp4",
    };
    let mut value = json!({"group_size": format.group(), "bits": format.bits(), "mode": mode});
    if let Value::Object(entries) = &mut value {
        for part in shape.parts() {
            if let Part::Matrix { prefix, .. } = part
                && Shape::is_router(&prefix)
            {
                entries.insert(prefix, json!({"group_size": ROUTER.group(), "bits": ROUTER.bits()}));
            }
        }
    }
    value
}

struct SynthSource {
    model: String,
    seed: u64,
    tensors: BTreeMap<String, (TensorInfo, Fill)>,
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy)]
enum Fill {
    Ones,
    /// Evenly spread with this standard deviation.
    Even(f32),
    /// Random bits.
    Codes,
    /// Scales of packed weights with standard deviation `1 / sqrt(inp)`.
    Scales(Format, usize),
    /// The biases that put the middle code at zero.
    Biases(Format, usize),
}

impl SynthSource {
    fn new(model: String, shape: &Shape, storage: Storage, seed: u64) -> Self {
        let mut source = Self { model, seed, tensors: BTreeMap::new() };
        let dtype = match storage {
            Storage::Plain(dtype) => dtype,
            Storage::Packed(_) => DType::BF16,
        };
        for part in shape.parts() {
            match part {
                Part::Norm { name, len } => source.add(name, dtype, vec![len], Fill::Ones),
                Part::Bias { name, len } => source.add(name, dtype, vec![len], Fill::Even(0.02)),
                Part::Matrix { prefix, experts, out, inp } => {
                    let extents = |inp| experts.into_iter().chain([out, inp]).collect::<Vec<_>>();
                    let at = |suffix| format!("{prefix}.{suffix}");
                    match storage.of_layer(&prefix) {
                        Storage::Plain(dtype) => {
                            let deviation = 1.0 / (inp as f32).sqrt();
                            source.add(at("weight"), dtype, extents(inp), Fill::Even(deviation));
                        }
                        Storage::Packed(format) => {
                            source.add(at("weight"), DType::U32, extents(format.words(inp)), Fill::Codes);
                            let groups = extents(inp / format.group());
                            if format == Format::Mxfp4 {
                                source.add(at("scales"), DType::U8, groups, Fill::Scales(format, inp));
                            } else {
                                source.add(at("scales"), dtype, groups.clone(), Fill::Scales(format, inp));
                                source.add(at("biases"), dtype, groups, Fill::Biases(format, inp));
                            }
                        }
                    }
                }
            }
        }
        source
    }

    fn add(&mut self, name: String, dtype: DType, shape: Vec<usize>, fill: Fill) {
        self.tensors.insert(name, (TensorInfo { dtype, shape }, fill));
    }

    fn bytes(&self) -> u64 {
        self.tensors
            .values()
            .map(|(info, _)| (info.shape.iter().product::<usize>() * info.dtype.bits() / 8) as u64)
            .sum()
    }
}

impl TensorSource for SynthSource {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        Some(self.tensors.get(name)?.0.clone())
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>> {
        let Some((info, fill)) = self.tensors.get(name) else {
            return Err(WeightsError::Missing {
                model: self.model.clone(),
                tensor: name.into(),
                rule: "this shape has no such tensor".into(),
            });
        };
        let elements = info.shape.iter().product();
        // Scales and biases of a layer draw from one stream, so that each bias fits its scale.
        let stream = |suffix: &str| Stream::new(self.seed, name.strip_suffix(suffix).unwrap_or(name));
        let bytes = match *fill {
            Fill::Ones => stream("").values(elements, info.dtype, |_| 1.0),
            Fill::Even(deviation) => {
                let step = deviation * 12f32.sqrt() / 256.0;
                stream("").values(elements, info.dtype, |pick| (f32::from(pick) - 127.5) * step)
            }
            Fill::Codes => stream("").bytes(elements * 4),
            Fill::Scales(Format::Mxfp4, inp) | Fill::Biases(Format::Mxfp4, inp) => {
                let table = mxfp4_scales(inp);
                stream(".scales").picks(elements, &table)
            }
            Fill::Scales(Format::Affine { bits, .. }, inp) => {
                stream(".scales").values(elements, info.dtype, |pick| affine_scale(pick, bits, inp))
            }
            Fill::Biases(Format::Affine { bits, .. }, inp) => {
                let middle = ((1u32 << bits) - 1) as f32 / 2.0;
                stream(".biases").values(elements, info.dtype, |pick| -middle * affine_scale(pick, bits, inp))
            }
        };
        Ok(Tensor { name: name.into(), dtype: info.dtype, shape: info.shape.clone(), bytes: bytes.into() })
    }
}

impl Stream {
    /// Floats picked from the 256 values of `value`, stored as `dtype`.
    fn values(self, elements: usize, dtype: DType, value: impl Fn(u8) -> f32) -> Vec<u8> {
        let value = |i: usize| value(i as u8);
        match dtype {
            DType::F32 => self.picks(elements, &std::array::from_fn(|i| value(i).to_le_bytes())),
            DType::F16 => {
                self.picks(elements, &std::array::from_fn(|i| f16::from_f32(value(i)).to_le_bytes()))
            }
            _ => self.picks(elements, &std::array::from_fn(|i| bf16::from_f32(value(i)).to_le_bytes())),
        }
    }
}

/// A scale between 3/4 and 5/4 of the one that gives uniform codes the variance `1 / inp`, rounded to bfloat16 so that
/// the bias belongs to the scale as stored.
fn affine_scale(pick: u8, bits: u8, inp: usize) -> f32 {
    let codes = (1u64 << bits) as f32;
    let deviation = ((codes * codes - 1.0) / 12.0).sqrt();
    let spread = 0.75 + f32::from(pick) / 510.0;
    bf16::from_f32(spread / (deviation * (inp as f32).sqrt())).to_f32()
}

/// Two neighbouring powers of two, mixed so that uniform codes get the variance `1 / inp`.
fn mxfp4_scales(inp: usize) -> [[u8; 1]; 256] {
    // Mean square of the sixteen e2m1 values.
    let wanted = 1.0 / (8.5625 * inp as f32);
    let exponent = (wanted.log2() / 2.0).floor();
    let larger = (wanted / (2.0 * exponent).exp2() - 1.0) / 3.0;
    let stored = (exponent + 127.0).clamp(1.0, 253.0) as u8;
    std::array::from_fn(|i| [if (i as f32) < 256.0 * larger { stored + 1 } else { stored }])
}
