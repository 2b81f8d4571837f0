//! Encoding, decoding and streaming against the recorded output of Hugging Face `tokenizers`.

mod golden;

use bessemer_text::{Detokenizer, SpecialTokens, Specials, Tokenizer, TokenizerError};
use golden::{ids, pieces, style, text};
use serde_json::{Value, json};

const STYLES: [&str; 3] = ["qwen", "llama3", "spm"];

fn each_case(check: impl Fn(&Tokenizer, &Value, &str)) {
    for name in STYLES {
        let (tokenizer, cases) = style(name);
        for list in ["encode", "decode"] {
            let cases = cases[list].as_array().expect("a list of cases");
            assert!(cases.len() >= 16, "{name}: {list} has lost cases");
            for case in cases {
                check(&tokenizer, case, &format!("{name}: {}", text(&case["name"])));
            }
        }
    }
}

#[test]
fn encodes_as_recorded() {
    each_case(|tokenizer, case, name| {
        if case["text"].is_null() {
            return;
        }
        let input = text(&case["text"]);
        assert_eq!(tokenizer.encode(input, SpecialTokens::Add).expect(name), ids(&case["ids"]), "{name}");
        let plain = tokenizer.encode(input, SpecialTokens::Skip).expect(name);
        assert_eq!(plain, ids(&case["ids_without_special"]), "{name}");
        let tokens: Vec<Option<String>> = plain.iter().map(|&id| tokenizer.id_to_token(id)).collect();
        assert_eq!(serde_json::to_value(tokens).expect(name), case["tokens"], "{name}");
    });
}

#[test]
fn decodes_as_recorded() {
    each_case(|tokenizer, case, name| {
        let kept = if case["text"].is_null() { &case["ids"] } else { &case["ids_without_special"] };
        assert_eq!(tokenizer.decode(&ids(kept), Specials::Keep), text(&case["decoded"]), "{name}");
        let skipped = tokenizer.decode(&ids(&case["ids"]), Specials::Skip);
        assert_eq!(skipped, text(&case["decoded_skip_special"]), "{name}");
    });
}

#[test]
fn streams_as_recorded() {
    each_case(|tokenizer, case, name| {
        let plain = if case["text"].is_null() { &case["ids"] } else { &case["ids_without_special"] };
        let plain = ids(plain);
        for (specials, key) in [(Specials::Keep, "stream"), (Specials::Skip, "stream_skip_special")] {
            let mut stream = Detokenizer::with_specials(tokenizer.clone(), specials);
            let mut sent: Vec<Option<String>> = plain.iter().map(|&id| stream.push(id)).collect();
            if !case[key].is_null() && case["stream_joined"] != "differs" {
                assert_eq!(sent, pieces(&case[key]), "{name}: {key}");
            }
            sent.push(stream.finish());
            assert_eq!(stream.finish(), None, "{name}: nothing is left after the end");
            if case["stream_joined"] == "same" || case["stream_joined"] == "prefix" {
                let joined: String = sent.into_iter().flatten().collect();
                assert_eq!(joined, tokenizer.decode(&plain, specials), "{name}: {key}");
            }
        }
    });
}

#[test]
fn token_bytes_join_to_the_text() {
    each_case(|tokenizer, case, name| {
        if case["text"].is_null() {
            return;
        }
        let plain = ids(&case["ids_without_special"]);
        let bytes: Vec<u8> = plain.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
        let joined = String::from_utf8(bytes).expect(name);
        // A SentencePiece tokenizer puts one space in front, which decoding takes away again.
        let decoded = text(&case["decoded"]);
        assert!(joined == decoded || joined.strip_prefix(' ') == Some(decoded), "{name}: {joined:?}");
    });
}

#[test]
fn special_tokens_are_known_by_name() {
    let (tokenizer, _) = style("qwen");
    let end = tokenizer.token_to_id("<|im_end|>").expect("the token");
    assert!(tokenizer.is_special(end));
    assert_eq!(tokenizer.id_to_token(end).as_deref(), Some("<|im_end|>"));
    assert_eq!(tokenizer.token_bytes(end), b"<|im_end|>");
    let think = tokenizer.token_to_id("<think>").expect("the token");
    assert!(!tokenizer.is_special(think), "an added token is not special unless the file says so");
    assert_eq!(tokenizer.vocab_size(), 1500);
}

#[test]
fn only_special_tokens_are_no_text() {
    for name in STYLES {
        let (tokenizer, _) = style(name);
        let ids = tokenizer.encode("", SpecialTokens::Skip).expect(name);
        assert!(ids.is_empty(), "{name}");
        let specials: Vec<u32> = (0..1500).filter(|&id| tokenizer.is_special(id)).collect();
        assert!(specials.len() >= 3, "{name}");
        assert_eq!(tokenizer.decode(&specials, Specials::Skip), "");
        let mut stream = Detokenizer::new(tokenizer.clone());
        assert!(specials.iter().all(|&id| stream.push(id).is_none()));
        assert_eq!(stream.finish(), None);
        let mut stream = Detokenizer::with_specials(tokenizer.clone(), Specials::Keep);
        assert!(specials.iter().all(|&id| stream.push(id).is_some()));
    }
}

#[test]
fn unknown_ids_are_nothing() {
    for name in STYLES {
        let (tokenizer, _) = style(name);
        assert_eq!(tokenizer.decode(&[u32::MAX, 1_000_000], Specials::Keep), "");
        assert_eq!(tokenizer.id_to_token(u32::MAX), None);
        assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
        assert!(!tokenizer.is_special(u32::MAX));
        let known = tokenizer.encode("two words", SpecialTokens::Skip).expect(name);
        let mut stream = Detokenizer::new(tokenizer.clone());
        let mut joined = String::new();
        for &id in &known {
            joined.extend(stream.push(id));
            for _ in 0..100 {
                assert_eq!(stream.push(u32::MAX), None);
            }
        }
        joined.extend(stream.finish());
        assert_eq!(joined, "two words", "{name}");
    }
}

#[test]
fn garbage_is_given_out_in_time() {
    let (tokenizer, _) = style("spm");
    let byte = tokenizer.token_to_id("<0xE4>").expect("a byte token");
    let mut stream = Detokenizer::new(tokenizer);
    let first = (1..200).find(|_| stream.push(byte).is_some());
    assert_eq!(first, Some(64));
    let sent: String = (0..1000).filter_map(|_| stream.push(byte)).collect();
    assert!(sent.chars().all(|c| c == '\u{FFFD}') && sent.chars().count() > 900);
}

#[test]
fn a_character_after_garbage_stays_whole() {
    let (tokenizer, _) = style("qwen");
    let bad = tokenizer.encode("\u{E9}", SpecialTokens::Skip).expect("é")[0];
    let rocket = tokenizer.encode("🚀", SpecialTokens::Skip).expect("🚀");
    assert!(rocket.len() >= 2, "the vocabulary must spell it in parts");
    for garbage in 50..80 {
        let mut ids = vec![bad; garbage];
        ids.extend(&rocket);
        let mut stream = Detokenizer::new(tokenizer.clone());
        let mut joined: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        joined.extend(stream.finish());
        assert_eq!(joined, tokenizer.decode(&ids, Specials::Skip), "after {garbage} bad tokens");
        assert!(joined.ends_with('🚀'));
    }
}

#[test]
fn broken_files_are_errors() {
    let good = golden::read("tokenizer/qwen/tokenizer.json");
    let half = &good.as_bytes()[..good.len() / 2];
    for bytes in [&b""[..], b"{}", b"null", b"\xFF\xFE", b"{\"model\": 3}", half] {
        match Tokenizer::from_bytes(bytes) {
            Err(error @ TokenizerError::Invalid { .. }) => {
                assert!(error.to_string().starts_with("tokenizer.json: must be"));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Files that are well-formed, and inconsistent in ways that the `tokenizers` crate does not check.
#[test]
fn inconsistent_files_are_errors() {
    let whole: Value = serde_json::from_str(&golden::read("tokenizer/qwen/tokenizer.json")).expect("JSON");
    let template = json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
        "single": [{"SpecialToken": {"id": "missing", "type_id": 0}}]});
    for (part, odd) in [
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("post_processor", template),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("model", json!({"type": "WordLevel", "vocab": {"a": u32::MAX}, "unk_token": "a"})),
    ] {
        let mut file = whole.clone();
        file[part] = odd;
        let result = Tokenizer::from_bytes(file.to_string().as_bytes())
            .and_then(|tokenizer| tokenizer.encode("some text", SpecialTokens::Add));
        assert!(result.is_err(), "{part}: {result:?}");
    }
}

#[test]
fn handles_are_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(value: &T) -> T {
        value.clone()
    }
    let (tokenizer, _) = style("qwen");
    let mut stream = Detokenizer::new(shared(&tokenizer));
    let ids = tokenizer.encode("Hello, world!", SpecialTokens::Skip).expect("ids");
    let joined =
        std::thread::spawn(move || -> String { ids.iter().filter_map(|&id| stream.push(id)).collect() });
    assert_eq!(joined.join().expect("no panic"), "Hello, world!");
}

#[test]
fn truncation_and_padding_of_the_file_are_ignored() {
    let mut file: Value = serde_json::from_str(&golden::read("tokenizer/qwen/tokenizer.json")).expect("JSON");
    file["truncation"] = json!(
        {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    );
    file["padding"] = json!({
        "strategy": {"Fixed": 200}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"
    });
    let odd = Tokenizer::from_bytes(file.to_string().as_bytes()).expect("a valid file");
    let (plain, _) = style("qwen");
    let words = "one two three four five six seven";
    assert_eq!(
        odd.encode(words, SpecialTokens::Add).expect("ids"),
        plain.encode(words, SpecialTokens::Add).expect("ids")
    );
}
