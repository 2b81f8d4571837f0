//! What both generation routes read alike: sampling, limits, stops, number of choices, delivery.
//!
//! - **Defaults** are the model's own, from its `generation_config.json`: temperature, top_p, top_k, min_p,
//!   repetition_penalty, and greedy output where `do_sample` is false. A field of the request replaces its default
//!   alone. (This is what vLLM does; OpenAI's fixed defaults of 1 suit few open models.)
//! - **Ranges** are OpenAI's for OpenAI's fields; extensions take what the sampler can compute.
//! - **Choices draw apart**: choice 0 uses the given seed, so that `n` does not change it; the others use seeds
//!   mixed from it and their index.

use bessemer_engine::{GenerationDefaults, Sampling};
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, integer, number, token_ids, wrong};
use super::passive::STREAM_OPTIONS;

/// Choices of one request at most, as in OpenAI's API; prompts times `n`.
pub const MAX_CHOICES: usize = 128;

/// Most probable tokens that can be asked for beside each token.
pub const MAX_TOP_LOGPROBS: i64 = 20;

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;
const MAX_LOGIT_BIASES: usize = 1024;
const MAX_STOP_TOKENS: usize = 1024;

/// How choices are generated and delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How tokens are drawn; `top_logprobs` is left to the route.
    pub sampling: Sampling,
    /// Strings that end the output.
    pub stop: Vec<String>,
    /// Tokens that end the output, beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Go on through the model's own end tokens.
    pub ignore_end: bool,
    /// Whom the request shares the prefix cache with.
    pub cache_salt: Option<String>,
    /// Choices for each prompt.
    pub n: usize,
    /// How the answer travels.
    pub delivery: Delivery,
}

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One JSON document at the end.
    Whole,
    /// Server-sent events.
    Stream(StreamUsage),
}

/// Whether a stream closes with the number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamUsage {
    /// A last chunk tells it.
    Told,
    /// It is left out.
    Untold,
}

impl Settings {
    /// Takes the common fields.
    pub fn take(fields: &mut Fields, defaults: &GenerationDefaults) -> Result<Self, ApiError> {
        let sampling = sampling(fields, defaults)?;
        let n = fields.integer("n", 1..=MAX_CHOICES as i64)?.unwrap_or(1);
        Ok(Self {
            sampling,
            stop: stop(fields)?,
            stop_tokens: stop_tokens(fields)?,
            ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
            cache_salt: fields.string("cache_salt")?,
            n: usize::try_from(n).unwrap_or(1),
            delivery: delivery(fields)?,
        })
    }

    /// The sampling of one of a prompt's choices.
    pub fn sampling_of(&self, choice: usize) -> Sampling {
        let mut sampling = self.sampling.clone();
        sampling.seed = sampling.seed.map(|seed| derived_seed(seed, choice as u64));
        sampling
    }
}

/// A limit on the output; zero is allowed where a request may only want its prompt back.
pub fn limit(fields: &mut Fields, name: &'static str, least: i64) -> Result<Option<usize>, ApiError> {
    let given = fields.integer(name, least..=i64::MAX)?;
    Ok(given.map(|given| usize::try_from(given).unwrap_or(usize::MAX)))
}

fn sampling(fields: &mut Fields, defaults: &GenerationDefaults) -> Result<Sampling, ApiError> {
    let default = defaults.sampling();
    // A top_p of 0 keeps the most probable token alone; so does the smallest positive number.
    let top_p = fields.number("top_p", 0.0..=1.0)?.map(|p| p.max(f32::MIN_POSITIVE));
    let penalty = fields.number("repetition_penalty", 0.0..=100.0)?;
    if penalty == Some(0.0) {
        return Err(wrong(&fields.path("repetition_penalty"), "above 0 (1 is off)", &Value::from(0)));
    }
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(default.temperature),
        top_k: top_k(fields)?.unwrap_or(default.top_k),
        top_p: top_p.unwrap_or(default.top_p),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(default.min_p),
        repetition_penalty: penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(default.presence_penalty),
        frequency_penalty: fields
            .number("frequency_penalty", -2.0..=2.0)?
            .unwrap_or(default.frequency_penalty),
        logit_bias: logit_bias(fields)?,
        // OpenAI's seeds are signed; all 64 bits count.
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(i64::cast_unsigned),
        top_logprobs: 0,
    })
}

/// `top_k`; −1 keeps all tokens in vLLM's spelling, 0 in llama.cpp's.
fn top_k(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let given = fields.integer("top_k", -1..=i64::from(u32::MAX))?;
    Ok(given.map(|k| u32::try_from(k).unwrap_or(0)))
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let path = fields.path("logit_bias");
    let Some(map) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    if map.len() > MAX_LOGIT_BIASES {
        return Err(wrong(&path, &format!("at most {MAX_LOGIT_BIASES} tokens"), &Value::from(map.len())));
    }
    map.iter()
        .map(|(token, bias)| {
            let id = token.parse::<u32>().map_err(|_| {
                wrong(&path, "an object whose keys are token ids", &Value::from(token.as_str()))
            })?;
            Ok((id, number(&format!("{path}.{id}"), bias, -100.0..=100.0)?))
        })
        .collect()
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let path = fields.path("stop");
    let given = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![Value::String(text)],
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong(&path, "a string or a list of strings", &other)),
    };
    if given.len() > MAX_STOPS {
        let rule = format!("at most {MAX_STOPS} strings");
        return Err(wrong(&path, &rule, &Value::Array(given)));
    }
    let check = |item: Value| match item {
        Value::String(text) if !text.is_empty() && text.len() <= MAX_STOP_BYTES => Ok(text),
        other => Err(wrong(&path, &format!("strings of 1 to {MAX_STOP_BYTES} bytes"), &other)),
    };
    given.into_iter().map(check).collect()
}

fn stop_tokens(fields: &mut Fields) -> Result<Vec<u32>, ApiError> {
    let path = fields.path("stop_token_ids");
    let items = fields.list("stop_token_ids")?.unwrap_or_default();
    if items.len() > MAX_STOP_TOKENS {
        return Err(wrong(&path, &format!("at most {MAX_STOP_TOKENS} token ids"), &Value::Array(items)));
    }
    token_ids(&path, &items)
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let path = fields.path("stream_options");
    let Some(options) = fields.take("stream_options") else {
        return Ok(if stream { Delivery::Stream(StreamUsage::Untold) } else { Delivery::Whole });
    };
    let mut options = Fields::new(options, &path)?;
    let told = options.boolean("include_usage")?.unwrap_or(false);
    options.finish(&[STREAM_OPTIONS])?;
    match (stream, told) {
        (false, _) => Err(ApiError::invalid(
            &path,
            format!(
                "{path}: is only allowed with `stream`: true, but `stream` is not set. Set it, or leave this out"
            ),
        )),
        (true, true) => Ok(Delivery::Stream(StreamUsage::Told)),
        (true, false) => Ok(Delivery::Stream(StreamUsage::Untold)),
    }
}

/// The number of most probable tokens to report, from a value at `path`.
pub fn top_logprobs(path: &str, value: &Value) -> Result<u32, ApiError> {
    let given = integer(path, value, 0..=MAX_TOP_LOGPROBS)?;
    Ok(u32::try_from(given).unwrap_or_default())
}

/// SplitMix64's finaliser over seed and index: neighbouring seeds must not share choices.
fn derived_seed(seed: u64, choice: u64) -> u64 {
    if choice == 0 {
        return seed;
    }
    let mut mixed = seed.wrapping_add(choice.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(body: Value) -> Result<Settings, ApiError> {
        let defaults = GenerationDefaults {
            temperature: Some(0.8),
            top_k: Some(40),
            repetition_penalty: Some(1.05),
            ..GenerationDefaults::default()
        };
        let mut fields = Fields::new(body, "")?;
        let settings = Settings::take(&mut fields, &defaults)?;
        fields.finish(&[])?;
        Ok(settings)
    }

    #[test]
    fn a_field_replaces_its_default_alone() {
        let sampling = settings(json!({"temperature": 0, "top_k": -1, "seed": -1})).unwrap().sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (0.0, 0, Some(u64::MAX)));
        assert_eq!(sampling.repetition_penalty, 1.05);
        assert_eq!(settings(json!({})).unwrap().sampling.top_k, 40);
    }

    #[test]
    fn choices_have_seeds_of_their_own() {
        let settings = settings(json!({"seed": 7, "n": 3})).unwrap();
        let seeds: Vec<_> = (0..3).map(|choice| settings.sampling_of(choice).seed.unwrap()).collect();
        assert_eq!(seeds[0], 7);
        assert_ne!(seeds[1], seeds[2]);
        assert!(!seeds[1..].contains(&derived_seed(8, 0)) && seeds[1] != derived_seed(8, 1));
    }

    #[test]
    fn stops() {
        assert_eq!(settings(json!({"stop": "a"})).unwrap().stop, ["a"]);
        assert_eq!(settings(json!({"stop": ["a", "b"]})).unwrap().stop, ["a", "b"]);
        assert!(settings(json!({"stop": [""]})).is_err());
        assert!(settings(json!({"stop": vec!["x"; 17]})).is_err());
        assert!(settings(json!({"stop": 3})).is_err());
    }

    #[test]
    fn stream_options_need_a_stream() {
        let with =
            |stream: bool| settings(json!({"stream": stream, "stream_options": {"include_usage": true}}));
        assert_eq!(with(true).unwrap().delivery, Delivery::Stream(StreamUsage::Told));
        assert!(with(false).unwrap_err().message().contains("stream_options"));
    }

    #[test]
    fn biases() {
        let bias = settings(json!({"logit_bias": {"5": -100, "6": 1.5}})).unwrap().sampling.logit_bias;
        assert_eq!(bias, [(5, -100.0), (6, 1.5)]);
        assert!(settings(json!({"logit_bias": {"a": 1}})).is_err());
        assert!(settings(json!({"logit_bias": {"5": 101}})).is_err());
    }
}
