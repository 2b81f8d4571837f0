//! The rules a request must keep before it enters the engine. Ranges are OpenAI's where OpenAI has the field, and
//! vLLM's elsewhere.

use crate::{EngineError, Request, Result, Sampling};

/// Entries of `logit_bias`, `stop_tokens` and `stop` at most.
pub(crate) const MAX_ENTRIES: usize = 1024;

/// Bytes of a `cache_salt` at most.
const MAX_SALT: usize = 1024;

/// Tokens reported beside each token at most.
pub(crate) const MAX_TOP_LOGPROBS: u32 = bessemer_kernels::sampling::MAX_LOGPROBS as u32;

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Entries of the vocabulary.
    pub(crate) vocab: usize,
    /// Tokens of prompt and output together.
    pub(crate) context: usize,
    /// Tokens that the KV cache holds.
    pub(crate) kv_tokens: usize,
}

impl Bounds {
    /// Checks all of a request.
    pub(crate) fn check(&self, request: &Request) -> Result<()> {
        self.check_prompt("prompt", &request.prompt, 1)?;
        if request.max_tokens == Some(0) {
            let cure = "Ask for at least one token, or leave it out to go on to the end of the context";
            return Err(EngineError::invalid("max_tokens", "must be at least 1", 0, cure));
        }
        if let Some(salt) = request.cache_salt.as_ref().filter(|salt| salt.len() > MAX_SALT) {
            let rule = format!("must have at most {MAX_SALT} bytes");
            return Err(EngineError::invalid("cache_salt", rule, salt.len(), "Give a shorter one"));
        }
        self.check_ids("stop_tokens", request.stop_tokens.iter().copied(), request.stop_tokens.len())?;
        self.check_sampling(&request.sampling)
    }

    /// Checks token ids that are to go through the network, with `room` more behind them.
    pub(crate) fn check_prompt(&self, field: &'static str, ids: &[u32], room: usize) -> Result<()> {
        if ids.is_empty() {
            return Err(EngineError::invalid(
                field,
                "must have at least one token",
                "empty",
                "Give some text",
            ));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab) {
            let rule = format!("token ids must be below the vocabulary's {} entries", self.vocab);
            return Err(EngineError::invalid(field, rule, id, "Tokenize with this model's own tokenizer"));
        }
        if ids.len() + room > self.context {
            let rule = format!("must have at most {} tokens", self.context - room);
            let cure = if self.kv_tokens <= self.context {
                "Shorten it, or give the KV cache more memory (kv_memory)"
            } else {
                "Shorten it, or raise the context if the model allows more"
            };
            return Err(EngineError::invalid(field, rule, format!("{} tokens long", ids.len()), cure));
        }
        Ok(())
    }

    fn check_ids(&self, field: &'static str, mut ids: impl Iterator<Item = u32>, count: usize) -> Result<()> {
        if count > MAX_ENTRIES {
            let rule = format!("must have at most {MAX_ENTRIES} entries");
            return Err(EngineError::invalid(field, rule, count, "Give fewer"));
        }
        if let Some(id) = ids.find(|id| *id as usize >= self.vocab) {
            let rule = format!("token ids must be below the vocabulary's {} entries", self.vocab);
            return Err(EngineError::invalid(field, rule, id, "Take ids of this model's own tokenizer"));
        }
        Ok(())
    }

    fn check_sampling(&self, sampling: &Sampling) -> Result<()> {
        within("temperature", sampling.temperature, 0.0, 2.0, "0 is greedy, 1 the model's own distribution")?;
        within("top_p", sampling.top_p, 0.0, 1.0, "1 keeps all tokens")?;
        if sampling.top_p == 0.0 {
            return Err(EngineError::invalid(
                "top_p",
                "must be above 0",
                0,
                "Use temperature 0 for greedy output",
            ));
        }
        within("min_p", sampling.min_p, 0.0, 1.0, "0 keeps all tokens")?;
        within("presence_penalty", sampling.presence_penalty, -2.0, 2.0, "0 is off")?;
        within("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0, "0 is off")?;
        let penalty = sampling.repetition_penalty;
        if !(penalty.is_finite() && penalty > 0.0) {
            let cure = "1 is off, values slightly above discourage repetition";
            return Err(EngineError::invalid(
                "repetition_penalty",
                "must be above 0 and finite",
                penalty,
                cure,
            ));
        }
        if sampling.top_logprobs > MAX_TOP_LOGPROBS {
            let rule = format!("must be from 0 to {MAX_TOP_LOGPROBS}");
            return Err(EngineError::invalid("top_logprobs", rule, sampling.top_logprobs, "Ask for fewer"));
        }
        let bias = &sampling.logit_bias;
        self.check_ids("logit_bias", bias.iter().map(|(id, _)| *id), bias.len())?;
        bias.iter()
            .try_for_each(|(_, value)| within("logit_bias", *value, -100.0, 100.0, "-100 bans a token"))
    }
}

fn within(field: &'static str, given: f32, low: f32, high: f32, cure: &str) -> Result<()> {
    if (low..=high).contains(&given) {
        return Ok(());
    }
    Err(EngineError::invalid(field, format!("must be from {low} to {high}"), given, cure))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { vocab: 100, context: 8, kv_tokens: 64 };

    fn field(change: impl FnOnce(&mut Request)) -> Option<&'static str> {
        let mut request = Request { prompt: vec![1, 2, 3], ..Request::default() };
        change(&mut request);
        match BOUNDS.check(&request) {
            Ok(()) => None,
            Err(EngineError::Invalid { field, .. }) => Some(field),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn defaults_and_greedy_are_valid() {
        assert_eq!(field(|_| ()), None);
        assert_eq!(field(|r| r.sampling = Sampling::greedy()), None);
    }

    #[test]
    fn each_rule_names_its_field() {
        assert_eq!(field(|r| r.prompt.clear()), Some("prompt"));
        assert_eq!(field(|r| r.prompt = vec![1; 7]), None);
        assert_eq!(field(|r| r.prompt = vec![1; 8]), Some("prompt"));
        assert_eq!(field(|r| r.prompt = vec![100]), Some("prompt"));
        assert_eq!(field(|r| r.max_tokens = Some(0)), Some("max_tokens"));
        assert_eq!(field(|r| r.stop_tokens = vec![99, 100]), Some("stop_tokens"));
        assert_eq!(field(|r| r.cache_salt = Some("s".repeat(1024))), None);
        assert_eq!(field(|r| r.cache_salt = Some("s".repeat(1025))), Some("cache_salt"));
        for bad in [-0.1, 2.1, f32::NAN, f32::INFINITY] {
            assert_eq!(field(|r| r.sampling.temperature = bad), Some("temperature"));
        }
        assert_eq!(field(|r| r.sampling.top_p = 0.0), Some("top_p"));
        assert_eq!(field(|r| r.sampling.top_p = 1.1), Some("top_p"));
        assert_eq!(field(|r| r.sampling.min_p = -0.5), Some("min_p"));
        assert_eq!(field(|r| r.sampling.presence_penalty = 2.5), Some("presence_penalty"));
        assert_eq!(field(|r| r.sampling.frequency_penalty = -2.5), Some("frequency_penalty"));
        assert_eq!(field(|r| r.sampling.repetition_penalty = 0.0), Some("repetition_penalty"));
        assert_eq!(field(|r| r.sampling.top_logprobs = 21), Some("top_logprobs"));
        assert_eq!(field(|r| r.sampling.logit_bias = vec![(100, 1.0)]), Some("logit_bias"));
        assert_eq!(field(|r| r.sampling.logit_bias = vec![(5, 101.0)]), Some("logit_bias"));
        assert_eq!(field(|r| r.sampling.logit_bias = vec![(5, 1.0); MAX_ENTRIES + 1]), Some("logit_bias"));
    }

    #[test]
    fn the_message_names_the_knob() {
        let message = |kv_tokens| {
            let bounds = Bounds { kv_tokens, ..BOUNDS };
            bounds.check_prompt("prompt", &[1; 9], 1).unwrap_err().to_string()
        };
        assert!(message(8).contains("kv_memory"));
        assert!(!message(64).contains("kv_memory"));
    }
}
