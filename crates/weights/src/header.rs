//! The header of a safetensors file: 8 bytes of length, JSON, then the tensors' bytes.
//!
//! - The `safetensors` crate **validates**: ranges in order without gaps, sizes that follow from shape and type, a
//!   file that ends where the last tensor ends.
//! - Its errors do not always name the tensor, so a refused header is read a second time, leniently, only to **name**
//!   the culprit.
//!
//! Format: <https://huggingface.co/docs/safetensors/index#format>.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::{SafeTensorError, SafeTensors};
use serde_json::Value;

use crate::{DType, Result, TensorInfo, WeightsError};

/// One tensor of a file.
#[derive(Debug, Clone)]
pub struct HeaderEntry {
    /// Type and shape.
    pub info: TensorInfo,
    /// Where its bytes lie, counted from the start of the file.
    pub range: Range<usize>,
}

/// The tensors of one safetensors file, by name.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// Entries in order of their names.
    pub tensors: BTreeMap<String, HeaderEntry>,
}

/// Reads and validates the header of a whole safetensors file. `file` is only for messages. All ranges in the answer
/// lie within `bytes`.
pub fn parse_safetensors_header(file: &str, bytes: &[u8]) -> Result<Header> {
    let (length, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| WeightsError::Safetensors { file: file.into(), rule: explain(error, bytes) })?;
    let start = length + 8;
    let tensors = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (begin, end) = info.data_offsets;
            let entry = HeaderEntry {
                info: TensorInfo { dtype: info.dtype.into(), shape: info.shape.clone() },
                range: start + begin..start + end,
            };
            (name, entry)
        })
        .collect();
    Ok(Header { tensors })
}

fn explain(error: SafeTensorError, bytes: &[u8]) -> String {
    let size = bytes.len();
    let length = bytes.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    match error {
        SafeTensorError::HeaderTooSmall => format!("it has {size} bytes, too few for a safetensors header"),
        SafeTensorError::HeaderTooLarge => {
            format!("its header claims {length} bytes, more than the 100 MB the format allows")
        }
        SafeTensorError::InvalidHeaderLength => {
            format!("its header claims {length} bytes, but the file has only {size}")
        }
        SafeTensorError::MetadataIncompleteBuffer => match end_of_data(bytes) {
            Some((tensor, end)) if end > size => {
                format!("it is cut off: tensor {tensor:?} ends at byte {end}, the file at {size}")
            }
            Some((tensor, end)) => {
                format!("it has {size} bytes, but its last tensor {tensor:?} ends at byte {end}")
            }
            None => format!("it has {size} bytes and no tensor that covers them"),
        },
        other => match misfit(bytes) {
            Some(rule) => rule,
            None => format!("its header is not valid: {other}"),
        },
    }
}

/// The header as loose JSON and where the data begins; only for messages.
fn loose_header(bytes: &[u8]) -> Option<(serde_json::Map<String, Value>, usize)> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk::<8>()?)).ok()?;
    let end = length.checked_add(8)?;
    match serde_json::from_slice(bytes.get(8..end)?).ok()? {
        Value::Object(map) => Some((map, end)),
        _ => None,
    }
}

fn offsets(entry: &Value) -> Option<(u64, u64)> {
    let offsets = entry.get("data_offsets")?;
    Some((offsets.get(0)?.as_u64()?, offsets.get(1)?.as_u64()?))
}

/// The tensor that ends last, and where.
fn end_of_data(bytes: &[u8]) -> Option<(String, usize)> {
    let (map, start) = loose_header(bytes)?;
    let (name, (_, end)) = map
        .iter()
        .filter_map(|(name, entry)| Some((name, offsets(entry)?)))
        .max_by_key(|(_, (_, end))| *end)?;
    Some((name.clone(), start.checked_add(usize::try_from(end).ok()?)?))
}

/// The first tensor whose entry breaks a rule.
fn misfit(bytes: &[u8]) -> Option<String> {
    let (map, _) = loose_header(bytes)?;
    let mut entries = Vec::new();
    for (name, entry) in map.iter().filter(|(name, _)| *name != "__metadata__") {
        let Ok(info) = serde_json::from_value::<safetensors::tensor::TensorInfo>(entry.clone()) else {
            return Some(format!(
                "tensor {name:?} has a malformed entry {entry}: dtype, shape or data_offsets is wrong"
            ));
        };
        let dtype = DType::from(info.dtype);
        let elements = info.shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let bits = elements.and_then(|elements| elements.checked_mul(dtype.bits()));
        let (begin, end) = info.data_offsets;
        let stored = end.checked_sub(begin);
        match bits {
            None => {
                return Some(format!(
                    "tensor {name:?} has shape {:?}, more elements than can exist",
                    info.shape
                ));
            }
            Some(bits) if stored != Some(bits / 8) => {
                return Some(format!(
                    "tensor {name:?} of type {dtype} and shape {:?} needs {} bytes, but its data_offsets are {begin} to \
                     {end}",
                    info.shape,
                    bits / 8
                ));
            }
            Some(_) => entries.push((begin, end, name)),
        }
    }
    entries.sort();
    let mut expected = 0;
    for (begin, end, name) in entries {
        if begin != expected {
            let what =
                if begin < expected { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Some(format!("tensor {name:?} {what}: it begins at {begin}, not at {expected}"));
        }
        expected = end;
    }
    None
}
