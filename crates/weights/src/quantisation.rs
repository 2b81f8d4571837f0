//! How weights are packed, and what `quantization` in `config.json` says about it.
//!
//! - The spelling is **mlx-lm's**: `{"group_size", "bits", "mode", "<layer>": {…} | true | false}`. A layer's entry
//!   stands for itself: what it leaves out is MLX's default (affine, group 64, 4 bits), *not* the value one level up.
//!   So the 8-bit router of an mxfp4 model, which names no mode, is affine.
//! - Entries say **how** a layer is quantised; **whether** it is, its `.scales` tensor says.
//! - `quantization_config` is read when `quantization` is absent, unless its `quant_method` says that it belongs to
//!   another tool.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{Result, WeightsError};

/// How a matrix `[out, in]` is packed along `in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `w = scale · q + bias`, one scale and one bias for every `group` neighbours; `q` unsigned of `bits` bits.
    Affine {
        /// 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// 32, 64 or 128.
        group: usize,
    },
    /// 4-bit floats (e2m1) with one power-of-two scale (e8m0) for every 32: OCP Microscaling v1.0.
    Mxfp4,
}

impl Format {
    /// Bits per code.
    pub fn bits(self) -> usize {
        match self {
            Self::Affine { bits, .. } => usize::from(bits),
            Self::Mxfp4 => 4,
        }
    }

    /// Neighbours that share a scale.
    pub fn group(self) -> usize {
        match self {
            Self::Affine { group, .. } => group,
            Self::Mxfp4 => 32,
        }
    }

    /// `u32` words in a row of `inp` weights.
    pub fn words(self, inp: usize) -> usize {
        // Supported groups are multiples of 32, so a row always ends on a word; wide arithmetic keeps a hostile `inp`
        // from overflowing.
        usize::try_from(inp as u128 * self.bits() as u128 / 32).unwrap_or(usize::MAX)
    }
}

/// What a layer's own entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Override {
    Format(Format),
    Default,
    Plain,
}

/// `quantization` of a `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quantisation {
    default: Option<Format>,
    layers: HashMap<String, Override>,
}

/// Bits of affine codes.
pub(crate) const SUPPORTED_BITS: [u64; 6] = [2, 3, 4, 5, 6, 8];
/// Groups of affine codes.
pub(crate) const SUPPORTED_GROUPS: [u64; 3] = [32, 64, 128];

const CURE: &str = "Convert the model again with mlx_lm.convert (affine 2, 3, 4, 5, 6 or 8 bits, or mxfp4)";

impl Quantisation {
    /// Reads `quantization`, or `quantization_config`, of a whole `config.json`.
    pub fn from_config(config: &Value) -> Result<Self> {
        let (field, value) = match (config.get("quantization"), config.get("quantization_config")) {
            (Some(value), _) if !value.is_null() => ("quantization", value),
            (_, Some(value)) if !value.is_null() => ("quantization_config", value),
            _ => return Ok(Self::default()),
        };
        let Value::Object(entries) = value else {
            return Err(refuse(field, value, "it must be an object"));
        };
        if let Some(method) = entries.get("quant_method") {
            return Err(refuse(
                &format!("{field}.quant_method"),
                method,
                "only the formats of MLX are supported (there `quant_method` is absent)",
            ));
        }
        let mut layers = HashMap::new();
        for (name, entry) in entries {
            let path = format!("{field}.{name}");
            let layer = match entry {
                Value::Object(entry) => Override::Format(read_format(&path, entry)?),
                Value::Bool(true) => Override::Default,
                Value::Bool(false) => Override::Plain,
                _ => continue,
            };
            layers.insert(name.clone(), layer);
        }
        for name in ["bits", "group_size"] {
            if !entries.contains_key(name) && entries.get("mode").and_then(Value::as_str) != Some("mxfp4") {
                return Err(refuse(&format!("{field}.{name}"), &Value::Null, "it must be given"));
            }
        }
        Ok(Self { default: Some(read_format(field, entries)?), layers })
    }

    /// The format of layer `prefix`, if config.json lets it be quantised.
    pub fn format(&self, prefix: &str) -> Option<Format> {
        match self.layers.get(prefix) {
            Some(Override::Format(format)) => Some(*format),
            Some(Override::Plain) => None,
            Some(Override::Default) | None => self.default,
        }
    }

    /// The format of layers without an entry of their own.
    pub fn default_format(&self) -> Option<Format> {
        self.default
    }
}

fn read_format(field: &str, entry: &Map<String, Value>) -> Result<Format> {
    let mode = match entry.get("mode") {
        None | Some(Value::Null) => "affine",
        Some(Value::String(mode)) => mode,
        Some(other) => {
            return Err(refuse(&format!("{field}.mode"), other, "it must be \"affine\" or \"mxfp4\""));
        }
    };
    let number = |name: &str, default: u64, allowed: &[u64]| match entry.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_u64() {
            Some(number) if allowed.contains(&number) => Ok(number),
            _ => {
                let rule = format!("with mode {mode:?} it must be one of {allowed:?}");
                Err(refuse(&format!("{field}.{name}"), value, &rule))
            }
        },
    };
    match mode {
        "affine" => Ok(Format::Affine {
            bits: number("bits", 4, &SUPPORTED_BITS)? as u8,
            group: number("group_size", 64, &SUPPORTED_GROUPS)? as usize,
        }),
        "mxfp4" => {
            number("bits", 4, &[4])?;
            number("group_size", 32, &[32])?;
            Ok(Format::Mxfp4)
        }
        other => {
            let value = Value::String(other.into());
            Err(refuse(&format!("{field}.mode"), &value, "it must be \"affine\" or \"mxfp4\""))
        }
    }
}

fn refuse(field: &str, value: &Value, rule: &str) -> WeightsError {
    let value = match value {
        Value::Null => "absent".into(),
        other => {
            let text = other.to_string();
            if text.len() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
        }
    };
    WeightsError::Quantisation { field: field.into(), value, rule: rule.into(), cure: CURE }
}
