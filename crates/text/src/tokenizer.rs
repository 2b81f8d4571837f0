//! Text to token ids and back, from a Hugging Face `tokenizer.json`.
//!
//! - **Shared**: a [`Tokenizer`] is a reference-counted handle; cloning it costs one atomic increment.
//! - **Special strings are tokens**: `<|im_end|>` inside a text becomes the token of that name, as in `transformers`,
//!   since rendered chat templates depend on it.
//! - **Padding and truncation of the file are dropped**: they belong to training batches; a server must neither cut
//!   nor pad a prompt.
//! - **Total in the ids**: a model's vocabulary is often larger than its tokenizer's. Ids nobody defined decode to
//!   nothing and are never an error.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokenizers::DecoderWrapper;

/// The highest id taken: tables are made from it, and no vocabulary comes near.
const MAX_ID: u32 = (1 << 24) - 1;

/// Whether encoding adds the tokens that the tokenizer's post-processor puts around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Add them (a plain completion prompt: usually the beginning-of-sequence token).
    Add,
    /// Leave them out (a rendered chat template, which writes its own).
    Skip,
}

/// What decoding does with special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Print them as their strings.
    Keep,
    /// Leave them out of the text.
    Skip,
}

/// Why a tokenizer could not be loaded or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The bytes are no usable `tokenizer.json`.
    #[error(
        "tokenizer.json: must be a Hugging Face tokenizers file, but reading it failed with: {reason}. \
         Download the file again, or write it anew with `save_pretrained` of a current transformers"
    )]
    Invalid {
        /// The parser's own words.
        reason: String,
    },
    /// The tokenizer refused a text.
    #[error(
        "text: must be encodable by tokenizer.json, but a text of {bytes} bytes failed with: {reason}. \
         Check the tokenizer's pre_tokenizer pattern and its unknown token"
    )]
    Encode {
        /// Length of the text in bytes.
        bytes: usize,
        /// The tokenizer's own words.
        reason: String,
    },
}

/// A tokenizer read from `tokenizer.json`; a cheap handle to clone and to share between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    special: HashSet<u32>,
    vocab_size: usize,
    spelling: Spelling,
}

/// How a vocabulary entry spells bytes, which is a property of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// GPT-2's alphabet: one printable character for each byte.
    ByteLevel,
    /// Plain text, but `<0xE2>` stands for one byte.
    ByteFallback,
    /// Plain text.
    Text,
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] when the bytes are not JSON, not a tokenizer, or inconsistent.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|reason| TokenizerError::Invalid { reason })?;
        guarded(|| tokenizer.with_truncation(None).map(|_| ()))
            .map_err(|reason| TokenizerError::Invalid { reason })?;
        tokenizer.with_padding(None);

        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let highest = tokenizer.get_vocab(true).into_values().max();
        if let Some(id) = highest.filter(|&id| id > MAX_ID) {
            let reason = format!("a token has the id {id}, above {MAX_ID}");
            return Err(TokenizerError::Invalid { reason });
        }
        let vocab_size = highest.map_or(0, |id| id as usize + 1);
        let spelling = tokenizer.get_decoder().map_or(Spelling::Text, spelling);
        Ok(Self { inner: Arc::new(Inner { tokenizer, special, vocab_size, spelling }) })
    }

    /// Token ids of `text`. Strings of special tokens inside the text become those tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the tokenizer refuses the text, for instance because a character has no token
    /// and the vocabulary has no unknown token.
    pub fn encode(&self, text: &str, special_tokens: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        let add = special_tokens == SpecialTokens::Add;
        guarded(|| self.inner.tokenizer.encode_fast(text, add))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|reason| TokenizerError::Encode { bytes: text.len(), reason })
    }

    /// Text of `ids`; bytes that are not UTF-8 become U+FFFD, unknown ids nothing.
    pub fn decode(&self, ids: &[u32], specials: Specials) -> String {
        let printed: Vec<u32> =
            ids.iter().copied().filter(|&id| specials == Specials::Keep || !self.is_special(id)).collect();
        // A few decoders count on at least one token and index without looking.
        if !printed.iter().any(|&id| self.id_to_token(id).is_some()) {
            return String::new();
        }
        guarded(|| self.inner.tokenizer.decode(&printed, false)).unwrap_or_default()
    }

    /// Number of ids, counted as the highest id plus one: the vocabulary may have holes.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// Id of a vocabulary entry in the vocabulary's own spelling (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// Vocabulary entry of an id in the vocabulary's own spelling; `None` for an id nobody defined.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// Whether the file marks the token as special (end of sequence, role markers, …).
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.contains(&id)
    }

    /// The bytes a token adds to a running text; they may be a part of a character. Empty for an unknown id.
    ///
    /// This is `bytes` in OpenAI's `logprobs`, and what a grammar matches against.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.id_to_token(id) else { return Vec::new() };
        match self.inner.spelling {
            Spelling::ByteLevel => byte_level_bytes(&token).unwrap_or_else(|| token.into_bytes()),
            Spelling::ByteFallback => match fallback_byte(&token) {
                Some(byte) => vec![byte],
                None => self.text_in_context(id).into_bytes(),
            },
            Spelling::Text => self.text_in_context(id).into_bytes(),
        }
    }

    /// Text of a token that does not begin the output, where decoders keep the leading space.
    fn text_in_context(&self, id: u32) -> String {
        let first = self.decode(&[id], Specials::Keep);
        let both = self.decode(&[id, id], Specials::Keep);
        both.strip_prefix(first.as_str()).map_or(first.clone(), str::to_owned)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.inner.vocab_size)
            .field("special", &self.inner.special.len())
            .field("spelling", &self.inner.spelling)
            .finish()
    }
}

fn spelling(decoder: &DecoderWrapper) -> Spelling {
    match decoder {
        DecoderWrapper::ByteLevel(_) => Spelling::ByteLevel,
        DecoderWrapper::ByteFallback(_) => Spelling::ByteFallback,
        DecoderWrapper::Sequence(sequence) => sequence
            .get_decoders()
            .iter()
            .map(spelling)
            .find(|&found| found != Spelling::Text)
            .unwrap_or(Spelling::Text),
        _ => Spelling::Text,
    }
}

/// Bytes behind a token in GPT-2's alphabet, `None` when a character is outside of it (an added token).
///
/// The alphabet shows printable Latin-1 as itself and the other 68 bytes, in order, as U+0100 and following.
fn byte_level_bytes(token: &str) -> Option<Vec<u8>> {
    token
        .chars()
        .map(|c| match u32::from(c) {
            code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
            code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
            code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
            0x143 => Some(0xAD),
            _ => None,
        })
        .collect()
}

/// The byte of a fallback token such as `<0xE2>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Runs code of the `tokenizers` crate, which indexes and subtracts unchecked in places that odd files reach.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer is inconsistent (internal panic)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_alphabet_is_a_bijection() {
        let bytes: Vec<u8> = (0..0x144)
            .filter_map(char::from_u32)
            .filter_map(|c| byte_level_bytes(&c.to_string()))
            .flatten()
            .collect();
        let mut sorted = bytes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_level_bytes("Ġa").as_deref(), Some(&b" a"[..]));
        assert_eq!(byte_level_bytes("▁a"), None);
    }

    #[test]
    fn fallback_bytes() {
        assert_eq!(fallback_byte("<0xE2>"), Some(0xE2));
        assert_eq!(fallback_byte("<0xE22>"), None);
        assert_eq!(fallback_byte("0xE2"), None);
    }
}
