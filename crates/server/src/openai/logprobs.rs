//! Log-probabilities in the two shapes of OpenAI's API.
//!
//! A token may be a part of a character. Its `bytes` are exact; its string is the text where the bytes are UTF-8, and
//! `bytes:\xe2\x80` otherwise, which keeps the names in a map apart.

use bessemer_engine::Token;
use bessemer_text::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Number, Value};

/// What log-probabilities are floored at: JSON knows no −∞.
const LEAST: f32 = -9999.0;

/// `choices[].logprobs` of a chat.
#[derive(Debug, Default, Serialize)]
pub struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<Vec<ChatToken>>,
}

/// One token of a chat's output.
#[derive(Debug, Serialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<TopToken>,
}

/// One alternative.
#[derive(Debug, Serialize)]
struct TopToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// Appends tokens.
    pub fn extend(&mut self, tokenizer: Option<&Tokenizer>, tokens: &[Token]) {
        let top = |&(id, logprob): &(u32, f32)| {
            let (token, bytes) = spelled(tokenizer, id);
            TopToken { token, logprob: logprob.max(LEAST), bytes }
        };
        self.content.extend(tokens.iter().map(|token| {
            let (name, bytes) = spelled(tokenizer, token.id);
            let top_logprobs = token.top.iter().map(top).collect();
            ChatToken { token: name, logprob: token.logprob.max(LEAST), bytes, top_logprobs }
        }));
    }
}

/// `choices[].logprobs` of a completion; four lists of the same length.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    /// Characters before the next token.
    #[serde(skip)]
    offset: usize,
}

impl CompletionLogprobs {
    /// Lists whose first token starts after `offset` characters of the choice's text.
    pub fn starting_at(offset: usize) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Characters up to the end of the last token.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// These tokens and then those of `next`, which must start where these end.
    pub fn followed_by(mut self, next: Self) -> Self {
        self.tokens.extend(next.tokens);
        self.token_logprobs.extend(next.token_logprobs);
        self.top_logprobs.extend(next.top_logprobs);
        self.text_offset.extend(next.text_offset);
        Self { offset: next.offset, ..self }
    }

    /// Appends tokens of the output. The chosen token is always in its map, as OpenAI documents.
    pub fn extend(&mut self, tokenizer: Option<&Tokenizer>, tokens: &[Token]) {
        for token in tokens {
            let mut top = Map::new();
            for &(id, logprob) in token.top.iter().chain(&[(token.id, token.logprob)]) {
                top.insert(spelled(tokenizer, id).0, float(logprob));
            }
            self.push(tokenizer, token.id, Some(token.logprob.max(LEAST)), Some(top));
        }
    }

    /// Appends one token; the first of a prompt has no log-probability.
    pub fn push(
        &mut self,
        tokenizer: Option<&Tokenizer>,
        id: u32,
        logprob: Option<f32>,
        top: Option<Map<String, Value>>,
    ) {
        let (name, bytes) = spelled(tokenizer, id);
        // Of a character's bytes the leading one counts, so that a split character counts once.
        let characters = bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
        self.tokens.push(name);
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(top);
        self.text_offset.push(self.offset);
        self.offset += characters;
    }
}

/// A log-probability as JSON.
pub fn float(logprob: f32) -> Value {
    // The shortest decimal of the f32, and not the long one of its f64.
    let short = logprob.max(LEAST).to_string().parse::<f64>().ok();
    short.and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

/// A token's string and bytes; without a tokenizer, its id.
pub fn spelled(tokenizer: Option<&Tokenizer>, id: u32) -> (String, Vec<u8>) {
    let Some(tokenizer) = tokenizer else { return (format!("token_id:{id}"), Vec::new()) };
    let bytes = tokenizer.token_bytes(id);
    let name = match std::str::from_utf8(&bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}")),
    };
    (name, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_infinity_and_short_decimals() {
        assert_eq!(float(f32::NEG_INFINITY).to_string(), "-9999.0");
        assert_eq!(float(-0.1).to_string(), "-0.1");
    }

    #[test]
    fn the_chosen_token_is_in_its_map() {
        let mut logprobs = CompletionLogprobs::starting_at(3);
        logprobs.extend(None, &[Token { id: 5, logprob: -3.0, top: vec![(1, -0.5)] }]);
        let json = serde_json::to_value(&logprobs).unwrap();
        assert_eq!(json["top_logprobs"][0], serde_json::json!({"token_id:1": -0.5, "token_id:5": -3.0}));
        assert_eq!(json["text_offset"], serde_json::json!([3]));
    }
}
