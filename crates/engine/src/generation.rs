//! What a model's own files say about generation: end tokens and sampling defaults.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Sampling;

/// The content of `generation_config.json` that an engine can follow. Values out of range are left out, since a file
/// must not make every request that relies on it invalid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// `do_sample`; `Some(false)` asks for greedy output.
    pub do_sample: Option<bool>,
    /// `temperature`.
    pub temperature: Option<f32>,
    /// `top_k`.
    pub top_k: Option<u32>,
    /// `top_p`.
    pub top_p: Option<f32>,
    /// `min_p`.
    pub min_p: Option<f32>,
    /// `repetition_penalty`.
    pub repetition_penalty: Option<f32>,
    /// `max_new_tokens`.
    pub max_new_tokens: Option<usize>,
    /// `eos_token_id` of `generation_config.json` and `config.json` together, each an id or a list.
    pub end_tokens: Vec<u32>,
}

impl GenerationDefaults {
    /// Reads both files; `vocab` bounds the end tokens.
    pub(crate) fn from_files(config: &Value, generation: Option<&Value>, vocab: usize) -> Self {
        let empty = Value::Null;
        let generation = generation.unwrap_or(&empty);
        let within = |field: &str, low: f64, high: f64| {
            let value = generation.get(field)?.as_f64()?;
            (low..=high).contains(&value).then_some(value as f32)
        };
        let mut end_tokens: Vec<u32> = [generation, config]
            .into_iter()
            .flat_map(|file| ids(file.get("eos_token_id")))
            .filter(|&id| (id as usize) < vocab)
            .collect();
        end_tokens.sort_unstable();
        end_tokens.dedup();
        Self {
            do_sample: generation.get("do_sample").and_then(Value::as_bool),
            temperature: within("temperature", 0.0, 2.0),
            top_k: generation.get("top_k").and_then(Value::as_u64).and_then(|k| u32::try_from(k).ok()),
            top_p: within("top_p", f64::MIN_POSITIVE, 1.0),
            min_p: within("min_p", 0.0, 1.0),
            repetition_penalty: within("repetition_penalty", f64::MIN_POSITIVE, f64::from(f32::MAX)),
            max_new_tokens: generation
                .get("max_new_tokens")
                .and_then(Value::as_u64)
                .and_then(|tokens| usize::try_from(tokens).ok())
                .filter(|&tokens| tokens > 0),
            end_tokens,
        }
    }

    /// The model's recommended sampling: its values over [`Sampling::default`].
    pub fn sampling(&self) -> Sampling {
        if self.do_sample == Some(false) {
            return Sampling {
                repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
                ..Sampling::greedy()
            };
        }
        let plain = Sampling::default();
        Sampling {
            temperature: self.temperature.unwrap_or(plain.temperature),
            top_k: self.top_k.unwrap_or(plain.top_k),
            top_p: self.top_p.unwrap_or(plain.top_p),
            min_p: self.min_p.unwrap_or(plain.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(plain.repetition_penalty),
            ..plain
        }
    }
}

/// An id, a list of ids, or nothing.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn end_tokens_come_from_both_files() {
        let read =
            |config, generation| GenerationDefaults::from_files(&config, Some(&generation), 10).end_tokens;
        assert_eq!(read(json!({"eos_token_id": 2}), json!({"eos_token_id": [7, 2, 3]})), [2, 3, 7]);
        assert_eq!(read(json!({}), json!({"eos_token_id": 9})), [9]);
        assert_eq!(read(json!({"eos_token_id": null}), json!({"eos_token_id": [10, -1, "x"]})), [0_u32; 0]);
    }

    #[test]
    fn sampling_follows_the_file() {
        let file = json!({"temperature": 0.8, "top_k": 40, "top_p": 1.5, "repetition_penalty": 1.05});
        let defaults = GenerationDefaults::from_files(&json!({}), Some(&file), 10);
        let sampling = defaults.sampling();
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.8, 40, 1.0));
        assert_eq!(sampling.repetition_penalty, 1.05);

        let file = json!({"do_sample": false, "temperature": 0.8});
        let greedy = GenerationDefaults::from_files(&json!({}), Some(&file), 10).sampling();
        assert_eq!(greedy, Sampling::greedy());
    }
}
