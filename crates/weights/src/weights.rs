//! Checked access to a checkpoint: every tensor is asked for by name and shape, and what nobody asked for is reported.
//!
//! - **Absence of `.scales` means plain.** That is how mlx-lm says that a layer was left unquantised; config.json need
//!   not mention it.
//! - **Experts are stacked.** Checkpoints as Hugging Face publishes them hold one matrix per expert
//!   (`…mlp.experts.3.up_proj`), MLX conversions one `[experts, out, in]` tensor (`…mlp.switch_mlp.up_proj`). A network
//!   asks for the second; the first is stacked here, at the price of one copy.
//! - **Leftovers are an error** ([`Weights::finish`]): a network that ignores tensors computes something else than the
//!   model it claims to run.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    DType, Format, ModelFiles, Quantisation, Result, Tensor, TensorInfo, TensorSource, WeightsError,
};

/// The weight of a linear layer, as stored.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, on its way to a device")]
pub enum LinearWeight<'a> {
    /// `[out, in]` or `[experts, out, in]` in float32, float16 or bfloat16.
    Plain(Tensor<'a>),
    /// Packed along `in`.
    Quantised {
        /// How codes and scales are to be read.
        format: Format,
        /// Rows (of one expert).
        out: usize,
        /// Columns.
        inp: usize,
        /// Leading extent of a stack of experts.
        experts: Option<usize>,
        /// `u32` words `[…, out, in · bits / 32]`: a little-endian stream of codes.
        codes: Tensor<'a>,
        /// `[…, out, in / group]`: float32, float16 or bfloat16 (affine), bytes (mxfp4).
        scales: Tensor<'a>,
        /// Like the scales; affine only.
        biases: Option<Tensor<'a>>,
    },
}

impl LinearWeight<'_> {
    /// Bytes as stored, scales and biases included.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Plain(tensor) => tensor.bytes.len(),
            Self::Quantised { codes, scales, biases, .. } => {
                codes.bytes.len()
                    + scales.bytes.len()
                    + biases.as_ref().map_or(0, |biases| biases.bytes.len())
            }
        }
    }
}

/// Checked access to the tensors of one model. Cheap to share: reading needs `&self` only.
pub struct Weights {
    model: String,
    source: Arc<dyn TensorSource>,
    quantisation: Quantisation,
    names: HashSet<String>,
    taken: Mutex<HashSet<String>>,
}

impl Weights {
    /// Reads `quantization` of config.json and the list of tensors.
    pub fn new(files: &ModelFiles) -> Result<Self> {
        Ok(Self {
            model: files.name.clone(),
            source: files.tensors.clone(),
            quantisation: Quantisation::from_config(&files.config)?,
            names: files.tensors.names().into_iter().collect(),
            taken: Mutex::default(),
        })
    }

    /// What config.json says about quantisation.
    pub fn quantisation(&self) -> &Quantisation {
        &self.quantisation
    }

    /// Whether the checkpoint holds this tensor.
    pub fn contains(&self, tensor: &str) -> bool {
        self.names.contains(tensor)
    }

    /// A vector of `len` floats: norms, additive biases.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.take(name, &[len], Content::Floats, "a vector of the network")?.to_f32()
    }

    /// A vector that a checkpoint may leave out.
    pub fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        self.contains(name).then(|| self.vector(name, len)).transpose()
    }

    /// The matrix `[out, in]` of `prefix`: `.weight`, with `.scales` and `.biases` if it is quantised.
    pub fn linear(&self, prefix: &str, out: usize, inp: usize) -> Result<LinearWeight<'_>> {
        self.matrix(&Place::One(prefix), prefix, out, inp)
    }

    /// The matrices of all experts, `[experts, out, in]`. `prefix` is spelled as MLX does
    /// (`….mlp.switch_mlp.up_proj`); one tensor per expert (`….mlp.experts.0.up_proj`) is found too and stacked.
    pub fn experts(&self, prefix: &str, experts: usize, out: usize, inp: usize) -> Result<LinearWeight<'_>> {
        let place = match prefix.rsplit_once(".switch_mlp.") {
            Some((layer, projection))
                if !self.contains(&format!("{prefix}.weight"))
                    && self.contains(&format!("{layer}.experts.0.{projection}.weight")) =>
            {
                Place::Each { layer, projection, experts }
            }
            _ => Place::Stack { prefix, experts },
        };
        self.matrix(&place, prefix, out, inp)
    }

    /// Says that the pages behind `prefix` (or behind the tensor of that very name) are no longer needed.
    pub fn release(&self, prefix: &str) {
        self.source.release(prefix);
        for suffix in ["weight", "scales", "biases"] {
            self.source.release(&format!("{prefix}.{suffix}"));
        }
    }

    /// Every tensor must have been taken, except those for which `ignored` answers true.
    pub fn finish(&self, ignored: &dyn Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left: Vec<&str> =
            self.names.difference(&taken).map(String::as_str).filter(|n| !ignored(n)).collect();
        if left.is_empty() {
            return Ok(());
        }
        left.sort_unstable();
        let shown = left.iter().take(5).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let first = if left.len() > 5 { format!("{shown}, …") } else { shown };
        Err(WeightsError::Leftover { model: self.model.clone(), count: left.len(), first })
    }

    fn matrix(&self, place: &Place<'_>, prefix: &str, out: usize, inp: usize) -> Result<LinearWeight<'_>> {
        let scales = place.first("scales");
        if !self.contains(&scales) {
            if self.contains(&place.first("biases")) {
                return Err(self.missing(&scales, "the layer has quantisation biases, so it needs scales"));
            }
            let packed =
                self.source.info(&place.first("weight")).is_some_and(|info| info.dtype == DType::U32);
            if packed {
                return Err(self.missing(&scales, "the layer's weight is packed, so it needs scales"));
            }
            let rule = "[out, in] of an unquantised layer";
            return Ok(LinearWeight::Plain(self.take_part(
                place,
                "weight",
                &[out, inp],
                Content::Floats,
                rule,
            )?));
        }
        let Some(format) = self.quantisation.format(prefix) else {
            return Err(WeightsError::Quantisation {
                field: format!("quantization for {prefix:?}"),
                value: "absent or false".into(),
                rule: format!("the checkpoint holds {scales:?}, so the layer is quantised"),
                cure: "Restore `quantization` in config.json as the converter wrote it",
            });
        };
        let (bits, group) = (format.bits(), format.group());
        if inp == 0 || !inp.is_multiple_of(group) {
            return Err(WeightsError::Quantisation {
                field: format!("quantization for {prefix:?}"),
                value: format!("group_size {group}"),
                rule: format!("the group must divide the layer's {inp} inputs"),
                cure: "Convert the model with a smaller group, or leave this layer unquantised",
            });
        }
        let rule = format!("{bits} bits, group {group}, {out} × {inp} weights");
        let groups = [out, inp / group];
        let part = |suffix, shape: [usize; 2], content| self.take_part(place, suffix, &shape, content, &rule);
        let codes = part("weight", [out, format.words(inp)], Content::Codes)?;
        let (scales, biases) = match format {
            Format::Affine { .. } => {
                (part("scales", groups, Content::Floats)?, Some(part("biases", groups, Content::Floats)?))
            }
            Format::Mxfp4 => (part("scales", groups, Content::Exponents)?, None),
        };
        Ok(LinearWeight::Quantised { format, out, inp, experts: place.experts(), codes, scales, biases })
    }

    /// One part (`weight`, `scales`, `biases`) of a matrix, with the extent of the experts in front.
    fn take_part(
        &self,
        place: &Place<'_>,
        suffix: &str,
        shape: &[usize],
        content: Content,
        rule: &str,
    ) -> Result<Tensor<'_>> {
        match *place {
            Place::One(prefix) => self.take(&format!("{prefix}.{suffix}"), shape, content, rule),
            Place::Stack { prefix, experts } => {
                let shape: Vec<usize> = [experts].iter().chain(shape).copied().collect();
                self.take(&format!("{prefix}.{suffix}"), &shape, content, rule)
            }
            Place::Each { layer, projection, experts } => {
                let name = |expert| format!("{layer}.experts.{expert}.{projection}.{suffix}");
                // Before memory is set aside: the number of experts is only what config.json claims.
                if let Some(name) = (0..experts).map(name).find(|name| !self.contains(name)) {
                    return Err(self.missing(&name, rule));
                }
                let mut bytes = Vec::new();
                let mut dtype = None;
                for name in (0..experts).map(name) {
                    let part = self.take(&name, shape, content, rule)?;
                    if *dtype.get_or_insert(part.dtype) != part.dtype {
                        return Err(self.wrong_type(&name, part.dtype, "the type of the other experts"));
                    }
                    if bytes.is_empty() {
                        bytes.reserve_exact(part.bytes.len().saturating_mul(experts));
                    }
                    bytes.extend_from_slice(&part.bytes);
                }
                Ok(Tensor {
                    name: format!("{layer}.experts.*.{projection}.{suffix}"),
                    dtype: dtype.unwrap_or(DType::F32),
                    shape: [experts].iter().chain(shape).copied().collect(),
                    bytes: Cow::Owned(bytes),
                })
            }
        }
    }

    fn take(&self, name: &str, shape: &[usize], content: Content, rule: &str) -> Result<Tensor<'_>> {
        let Some(TensorInfo { shape: found, dtype }) = self.source.info(name) else {
            return Err(self.missing(name, rule));
        };
        if found != shape {
            return Err(WeightsError::Shape {
                model: self.model.clone(),
                tensor: name.into(),
                found,
                expected: shape.into(),
                rule: rule.into(),
            });
        }
        let allowed = match content {
            Content::Floats if !dtype.is_weight() => Some("F32, F16 or BF16"),
            Content::Codes if dtype != DType::U32 => Some("U32 (packed codes)"),
            Content::Exponents if !matches!(dtype, DType::U8 | DType::F8E8M0) => Some("U8 (mxfp4 scales)"),
            _ => None,
        };
        if let Some(allowed) = allowed {
            return Err(self.wrong_type(name, dtype, allowed));
        }
        let tensor = self.source.read(name)?;
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(tensor)
    }

    fn missing(&self, tensor: &str, rule: &str) -> WeightsError {
        WeightsError::Missing { model: self.model.clone(), tensor: tensor.into(), rule: rule.into() }
    }

    fn wrong_type(&self, tensor: &str, found: DType, allowed: &'static str) -> WeightsError {
        WeightsError::Type { model: self.model.clone(), tensor: tensor.into(), found, allowed }
    }
}

/// What a tensor must hold; decides the types it may have.
#[derive(Debug, Clone, Copy)]
enum Content {
    Floats,
    Codes,
    Exponents,
}

/// Where the parts of a matrix lie.
enum Place<'p> {
    /// One matrix.
    One(&'p str),
    /// All experts in one tensor.
    Stack { prefix: &'p str, experts: usize },
    /// One tensor per expert.
    Each { layer: &'p str, projection: &'p str, experts: usize },
}

impl Place<'_> {
    /// Name of the (first) tensor of a part.
    fn first(&self, suffix: &str) -> String {
        match self {
            Self::One(prefix) | Self::Stack { prefix, .. } => format!("{prefix}.{suffix}"),
            Self::Each { layer, projection, .. } => format!("{layer}.experts.0.{projection}.{suffix}"),
        }
    }

    fn experts(&self) -> Option<usize> {
        match *self {
            Self::One(_) => None,
            Self::Stack { experts, .. } | Self::Each { experts, .. } => Some(experts),
        }
    }
}
