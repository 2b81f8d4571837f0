//! Layers with shapes that may or may not fit: what [`Weights`] hands out can be dequantised and packed, and the packed
//! form holds the same numbers.
#![no_main]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bessemer_kernels::linear::{Encoding, LinearLayout, LinearShape, ScaleType, Source, pack, unpack_row};
use bessemer_weights::{
    DType, Format, LinearWeight, ModelFiles, Result, Tensor, TensorInfo, TensorSource, Weights, dequantise,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

#[derive(Arbitrary, Debug)]
struct Input {
    packing: Packing,
    /// Rows and groups of columns, taken modulo small numbers.
    out: u8,
    groups: u8,
    experts: Experts,
    damage: Option<(Part, Damage)>,
    /// Repeated to fill the tensors.
    bytes: Vec<u8>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Packing {
    Plain(Float),
    Affine { bits: u8, group: u8, scales: Float },
    Mxfp4,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Float {
    F32,
    F16,
    Bf16,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Experts {
    None,
    Stacked(u8),
    Each(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Part {
    Weight,
    Scales,
    Biases,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Damage {
    Missing,
    Type(u8),
    Extent { axis: u8, value: u8 },
    Rank(u8),
}

fuzz_target!(|input: Input| {
    let layer = Layer::new(&input);
    let weights = match Weights::new(&layer.files(&input)) {
        Ok(weights) => weights,
        Err(error) => panic!("the configuration is sound: {error}"),
    };
    let weight = match layer.experts {
        None => weights.linear("l.up", layer.out, layer.inp),
        Some(experts) => weights.experts("l.switch_mlp.up", experts, layer.out, layer.inp),
    };
    match weight {
        Ok(weight) => check(&weight, &layer),
        Err(error) => {
            assert!(input.damage.is_some() || layer.inp == 0 || layer.experts == Some(0), "{error}")
        }
    }
});

/// Shape and tensors before damage.
struct Layer {
    out: usize,
    inp: usize,
    experts: Option<usize>,
    tensors: Vec<(Part, TensorInfo)>,
    quantisation: serde_json::Value,
}

impl Layer {
    fn new(input: &Input) -> Self {
        let out = usize::from(input.out % 40);
        let groups = usize::from(input.groups % 5);
        let (inp, tensors, quantisation) = match input.packing {
            Packing::Plain(float) => {
                let inp = usize::from(input.groups);
                (inp, vec![(Part::Weight, info(float.dtype(), &[out, inp]))], json!(null))
            }
            Packing::Affine { bits, group, scales } => {
                let bits = [2, 3, 4, 5, 6, 8][usize::from(bits) % 6];
                let group = [32, 64, 128][usize::from(group) % 3];
                let inp = groups * group;
                let tensors = vec![
                    (Part::Weight, info(DType::U32, &[out, inp * bits / 32])),
                    (Part::Scales, info(scales.dtype(), &[out, groups])),
                    (Part::Biases, info(scales.dtype(), &[out, groups])),
                ];
                (inp, tensors, json!({"bits": bits, "group_size": group}))
            }
            Packing::Mxfp4 => {
                let inp = groups * 32;
                let tensors = vec![
                    (Part::Weight, info(DType::U32, &[out, inp / 8])),
                    (Part::Scales, info(DType::U8, &[out, groups])),
                ];
                (inp, tensors, json!({"mode": "mxfp4", "bits": 4, "group_size": 32}))
            }
        };
        let experts = match input.experts {
            Experts::None => None,
            Experts::Stacked(experts) | Experts::Each(experts) => Some(usize::from(experts % 4)),
        };
        Self { out, inp, experts, tensors, quantisation }
    }

    fn files(&self, input: &Input) -> ModelFiles {
        let mut tensors = BTreeMap::new();
        for (part, info) in &self.tensors {
            let suffix = match part {
                Part::Weight => "weight",
                Part::Scales => "scales",
                Part::Biases => "biases",
            };
            let stacked =
                TensorInfo { shape: [vec![self.experts.unwrap_or(1)], info.shape.clone()].concat(), ..*info };
            match input.experts {
                Experts::None => {
                    tensors.insert(format!("l.up.{suffix}"), info.clone());
                }
                Experts::Stacked(_) => {
                    tensors.insert(format!("l.switch_mlp.up.{suffix}"), stacked);
                }
                Experts::Each(_) => {
                    for expert in 0..self.experts.unwrap_or(0) {
                        tensors.insert(format!("l.experts.{expert}.up.{suffix}"), info.clone());
                    }
                }
            }
        }
        if let Some((part, damage)) = input.damage {
            let suffix = match part {
                Part::Weight => "weight",
                Part::Scales => "scales",
                Part::Biases => "biases",
            };
            // The last of them: with one tensor per expert, the first ones are sound then.
            let name = tensors.keys().rev().find(|name| name.ends_with(suffix)).cloned();
            if let Some(name) = name {
                damage.apply(name, &mut tensors);
            }
        }
        let source = InMemory { tensors, bytes: input.bytes.clone() };
        ModelFiles {
            name: "fuzz".into(),
            config: json!({"quantization": self.quantisation}),
            generation_config: None,
            tokenizer_json: None,
            tokenizer_config: None,
            chat_template: None,
            tensors: Arc::new(source),
            bytes_on_disk: 0,
        }
    }
}

impl Damage {
    fn apply(self, name: String, tensors: &mut BTreeMap<String, TensorInfo>) {
        if matches!(self, Self::Missing) {
            tensors.remove(&name);
            return;
        }
        let Some(info) = tensors.get_mut(&name) else { return };
        match self {
            Self::Missing => {}
            Self::Type(dtype) => {
                const TYPES: [DType; 7] =
                    [DType::F32, DType::F16, DType::BF16, DType::U32, DType::U8, DType::I32, DType::F8E8M0];
                info.dtype = TYPES[usize::from(dtype) % TYPES.len()];
            }
            Self::Extent { axis, value } => {
                let axis = usize::from(axis) % info.shape.len().max(1);
                if let Some(extent) = info.shape.get_mut(axis) {
                    *extent = usize::from(value);
                }
            }
            Self::Rank(rank) => info.shape.resize(usize::from(rank % 5), 1),
        }
    }
}

impl Float {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

fn info(dtype: DType, shape: &[usize]) -> TensorInfo {
    TensorInfo { dtype, shape: shape.into() }
}

/// Tensors whose bytes always agree with type and shape, as those of a checked file do.
struct InMemory {
    tensors: BTreeMap<String, TensorInfo>,
    bytes: Vec<u8>,
}

impl TensorSource for InMemory {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).cloned()
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>> {
        let info = self.tensors.get(name).unwrap_or_else(|| panic!("{name} was not asked for by info first"));
        let len = info.shape.iter().product::<usize>() * info.dtype.bits() / 8;
        // Different tensors begin at different bytes, so that scales are not codes.
        let skip = name.len();
        let bytes = self.bytes.iter().copied().cycle().skip(skip.min(self.bytes.len())).take(len);
        let mut bytes: Vec<u8> = bytes.collect();
        bytes.resize(len, 0x3c);
        Ok(Tensor {
            name: name.into(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: Cow::Owned(bytes),
        })
    }
}

fn check(weight: &LinearWeight<'_>, layer: &Layer) {
    let rows = layer.experts.unwrap_or(1) * layer.out;
    let values = dequantise(weight).expect("a checked layer can be dequantised");
    assert_eq!(values.len(), rows * layer.inp);
    let (source, encoding, group) = match weight {
        LinearWeight::Plain(tensor) => {
            let encoding = match tensor.dtype {
                DType::F16 => Encoding::F16,
                DType::BF16 => Encoding::Bf16,
                _ => Encoding::F32,
            };
            (Source { weights: &tensor.bytes, scales: None, biases: None }, encoding, 1)
        }
        LinearWeight::Quantised { format, codes, scales, biases, .. } => {
            let (encoding, given) = match (*format, scales.dtype) {
                (Format::Mxfp4, _) => (Encoding::Mxfp4, ScaleType::E8m0),
                (Format::Affine { bits, .. }, DType::F16) => (Encoding::Affine { bits }, ScaleType::F16),
                (Format::Affine { bits, .. }, DType::BF16) => (Encoding::Affine { bits }, ScaleType::Bf16),
                (Format::Affine { bits, .. }, _) => (Encoding::Affine { bits }, ScaleType::F32),
            };
            let biases = biases.as_ref().map(|biases| &*biases.bytes);
            let source = Source { weights: &codes.bytes, scales: Some((given, &scales.bytes)), biases };
            (source, encoding, format.group())
        }
    };
    let shape = LinearShape { experts: layer.experts.unwrap_or(1), out: layer.out, inp: layer.inp };
    let layout =
        LinearLayout::new(encoding, shape, group, source.scale_type()).expect("a small layer has a layout");
    let mut packed = vec![0; layout.bytes()];
    let panels = layout.experts() * layout.panels();
    if pack(&layout, &source, 0..panels, &mut packed).is_err() {
        // Scales and biases of two types are possible in a file, but no kernel takes them.
        assert!(types_differ(weight));
        return;
    }
    if types_differ(weight) || layer.inp == 0 {
        return;
    }
    let exact = layout.scale_type() != ScaleType::F32 || !layout.is_quantised();
    let mut row_values = vec![0.0; layer.inp];
    for (row, wanted) in values.chunks_exact(layer.inp).enumerate() {
        unpack_row(&layout, &packed, row, &mut row_values).expect("the row exists");
        for (column, (got, wanted)) in row_values.iter().zip(wanted).enumerate() {
            // mxfp4's outermost exponents mean zero and infinity to the kernels (see `ScaleType::E8m0`), which compute with
            // up to twelve times the scale.
            let extreme = encoding == Encoding::Mxfp4 && !matches!(scale_byte(weight, row, column), 1..=251);
            // With float32 scales one side rounds once and the other twice.
            let near = !exact && (!got.is_finite() || !wanted.is_finite() || rounding(weight, got, wanted));
            let same = got == wanted || (got.is_nan() && wanted.is_nan());
            assert!(same || near || extreme, "row {row}, column {column}: packed {got:e}, stored {wanted:e}");
        }
    }
}

fn types_differ(weight: &LinearWeight<'_>) -> bool {
    matches!(weight, LinearWeight::Quantised { scales, biases: Some(biases), .. } if scales.dtype != biases.dtype)
}

fn scale_byte(weight: &LinearWeight<'_>, row: usize, column: usize) -> u8 {
    match weight {
        LinearWeight::Quantised { inp, scales, .. } => {
            scales.bytes.get(row * inp / 32 + column / 32).copied().unwrap_or(0)
        }
        LinearWeight::Plain(_) => 0,
    }
}

/// The difference is within the rounding of the largest possible product.
fn rounding(weight: &LinearWeight<'_>, got: &f32, wanted: &f32) -> bool {
    let LinearWeight::Quantised { scales, .. } = weight else { return false };
    let largest =
        scales.to_f32().unwrap_or_default().into_iter().fold(0f32, |most, scale| most.max(scale.abs()));
    (got - wanted).abs() <= largest * 255.0 * f32::EPSILON || !largest.is_finite()
}
