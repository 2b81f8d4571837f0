//! Properties over random ids, texts and templates.

mod golden;

use std::sync::LazyLock;

use bessemer_text::{ChatInput, ChatTemplate, Detokenizer, SpecialTokens, Specials, TokenStrings, Tokenizer};
use proptest::prelude::*;

/// Tokenizers whose tokens are bytes: whatever the ids are, streaming and batch decoding agree.
static BYTE_LEVEL: LazyLock<Vec<Tokenizer>> =
    LazyLock::new(|| vec![golden::style("qwen").0, golden::style("llama3").0, golden::storyteller()]);

static BYTE_FALLBACK: LazyLock<Tokenizer> = LazyLock::new(|| golden::style("spm").0);

fn stream(tokenizer: &Tokenizer, ids: &[u32], specials: Specials) -> (Vec<String>, Option<String>) {
    let mut detokenizer = Detokenizer::with_specials(tokenizer.clone(), specials);
    let sent = ids.iter().filter_map(|&id| detokenizer.push(id)).collect();
    (sent, detokenizer.finish())
}

/// Ids as a broken model may emit them: any of the vocabulary, many parts of characters, some unknown.
fn any_ids() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(
        prop_oneof![4 => 0u32..1600, 4 => 0u32..300, 1 => 0u32..5000, 1 => any::<u32>()],
        0..200,
    )
}

fn any_specials() -> impl Strategy<Value = Specials> {
    prop_oneof![Just(Specials::Keep), Just(Specials::Skip)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streaming_equals_batch_decoding(ids in any_ids(), specials in any_specials()) {
        for tokenizer in &*BYTE_LEVEL {
            let (sent, rest) = stream(tokenizer, &ids, specials);
            prop_assert!(sent.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(sent.concat() + rest.as_deref().unwrap_or(""), tokenizer.decode(&ids, specials));
        }
    }

    #[test]
    fn streaming_equals_batch_decoding_of_valid_text(text in "\\PC{0,40}", repeat in 1usize..4) {
        let text = text.repeat(repeat);
        for tokenizer in BYTE_LEVEL.iter().chain([&*BYTE_FALLBACK]) {
            let ids = tokenizer.encode(&text, SpecialTokens::Skip).expect("ids");
            let decoded = tokenizer.decode(&ids, Specials::Keep);
            let (sent, rest) = stream(tokenizer, &ids, Specials::Keep);
            prop_assert_eq!(sent.concat() + rest.as_deref().unwrap_or(""), decoded);
            let whole = |piece: &String| text.contains('\u{FFFD}') || !piece.contains('\u{FFFD}');
            prop_assert!(sent.iter().all(whole), "half a character in {:?}", sent);
        }
    }

    #[test]
    fn byte_fallback_differs_only_where_bytes_are_bad(ids in any_ids(), specials in any_specials()) {
        let decoded = BYTE_FALLBACK.decode(&ids, specials);
        let (sent, rest) = stream(&BYTE_FALLBACK, &ids, specials);
        let joined = sent.concat() + rest.as_deref().unwrap_or("");
        if decoded.contains('\u{FFFD}') {
            let good = |text: &str| text.chars().filter(|&c| c.is_ascii_alphabetic()).count();
            prop_assert!(good(&joined) >= good(&decoded), "{:?} has lost text of {:?}", joined, decoded);
        } else {
            prop_assert_eq!(joined, decoded);
        }
    }

    #[test]
    fn token_bytes_are_the_text_of_byte_level_tokens(ids in prop::collection::vec(0u32..1500, 0..50)) {
        for tokenizer in &*BYTE_LEVEL {
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
            prop_assert_eq!(String::from_utf8_lossy(&bytes), tokenizer.decode(&ids, Specials::Keep));
        }
    }

    #[test]
    fn odd_bytes_are_no_tokenizer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Tokenizer::from_bytes(&bytes).is_err());
    }

    /// A template cut, spliced and repeated anywhere either renders or gives an ordinary error.
    #[test]
    fn mangled_templates_are_errors(
        name in prop::sample::select(vec!["qwen3", "llama3", "mistral", "glm"]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        noise in "[-{}%#a-z0-9()\\[\\]'.:|~*+ \n]{0,12}",
    ) {
        let whole: Vec<char> = golden::read(&format!("chat/{name}.jinja")).chars().collect();
        let mut mangled: Vec<char> = whole.clone();
        for (from, to) in cuts {
            let (from, to) = (from.index(whole.len()), to.index(mangled.len()));
            let piece: Vec<char> = whole.iter().skip(from).take(60).copied().chain(noise.chars()).collect();
            mangled.splice(to..(to + 30).min(mangled.len()), piece);
            if mangled.is_empty() { break; }
        }
        let source: String = mangled.into_iter().collect();
        let messages = serde_json::json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]);
        let variables = serde_json::Map::new();
        let input = ChatInput { messages: &messages, tools: Some(&messages), add_generation_prompt: true, variables: &variables };
        let result = ChatTemplate::new(&source, TokenStrings::default()).and_then(|template| template.render(&input));
        if let Err(error) = result {
            prop_assert!(!error.to_string().contains("panic"), "{error}: {source}");
        }
    }
}
