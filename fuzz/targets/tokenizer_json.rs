//! `tokenizer.json`: a file is refused, or what it makes encodes and decodes without a panic.
#![no_main]

mod caught;

use bessemer_text::{Detokenizer, SpecialTokens, Specials, Tokenizer};
use libfuzzer_sys::{Corpus, fuzz_target};

/// The seeds are a few hundred bytes; longer files only add vocabulary.
const LONGEST: usize = 8192;

fuzz_target!(
    init: caught::install(),
    |bytes: &[u8]| -> Corpus {
        if bytes.len() > LONGEST {
            return Corpus::Reject;
        }
        caught::run(|| tokenize(bytes));
        Corpus::Keep
    }
);

fn tokenize(bytes: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(bytes) else { return };
    for text in ["", "Hello, world!", "Grüße 世界 🦀\u{301}", "<|im_start|>user\n"] {
        if let Ok(ids) = tokenizer.encode(text, SpecialTokens::Add) {
            tokenizer.decode(&ids, Specials::Keep);
            let mut detokenizer = Detokenizer::new(tokenizer.clone());
            for id in ids {
                detokenizer.push(id);
            }
            detokenizer.finish();
        }
    }
    tokenizer.decode(&[0, 1, 7, u32::MAX], Specials::Skip);
}
